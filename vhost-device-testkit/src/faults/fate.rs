//! What becomes of a malformed chain: it fails alone, or it takes its ring with it, which then can be revived.

use std::time::Duration;

use crate::ensure;
use crate::failure::{At, Result};
use crate::framing::{Framing, Placed};
use crate::ring::{Descriptor, WRITE};
use crate::session::{REQUEST_TIMEOUT, Session};
use crate::stand::Stand;

/// What became of a malformed chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was completed as failed.
    Failed,
    /// Nothing was completed.
    Stopped,
}

/// Waits a little for a chain that may never be used. A chain that is used must have failed.
///
/// # Errors
/// When another chain was used, or this one with something written to it.
pub fn fate_of(session: &mut Session, queue: usize, head: u16) -> Result<Fate> {
    match session.rings[queue].watch(Duration::from_millis(150)) {
        Err(_) => Ok(Fate::Stopped),
        Ok(used) => {
            ensure!(
                used.id == u32::from(head),
                "chain {} was used instead of {head}",
                used.id
            );
            ensure!(
                used.len == 0,
                "a broken chain was answered with {} bytes",
                used.len
            );
            Ok(Fate::Failed)
        }
    }
}

/// The ring works again: at once after a failed chain, after a restart of the ring if it had stopped.
///
/// # Errors
/// When it does not.
pub fn recovers(stand: &Stand<'_>, session: &mut Session, queue: usize, fate: Fate) -> Result<()> {
    ensure!(session.control.is_open(), "the connection was closed");
    if fate == Fate::Stopped {
        session.revive_ring(queue).at("restart the ring")?;
    }
    stand
        .probe(session)
        .at(format!("after a malformed chain ({fate:?})"))?;
    Ok(())
}

/// How a malformed chain is put into the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// In the ring's own table.
    Direct,
    /// In an indirect table.
    Indirect,
}

/// Submits a chain of well-linked descriptors that the device cannot serve. It must fail, and the ring must go on.
///
/// # Errors
/// When it does not fail, or the ring does not go on.
pub fn fails_alone(
    stand: &Stand<'_>,
    session: &mut Session,
    chain: &[Descriptor],
    table: Table,
) -> Result<()> {
    let queue = stand.subject.probe().queue;
    let mark = session.memory.mark();
    let head = match table {
        Table::Direct => session.rings[queue].add(chain)?,
        Table::Indirect => session.rings[queue].add_indirect(chain)?,
    };
    session.rings[queue].submit()?;
    stand.stimulate(1)?;
    let used = session.rings[queue].wait(REQUEST_TIMEOUT)?;
    ensure!(
        used.id == u32::from(head),
        "chain {} was used instead of {head}",
        used.id
    );
    if used.len > 0 {
        reports_failure(stand, session, chain, used.len)?;
    }
    session.memory.rewind(&mark);
    stand.probe(session).at("the next request")?;
    Ok(())
}

/// Something was written: it must be the device's error status, in the buffers that exist.
fn reports_failure(
    stand: &Stand<'_>,
    session: &Session,
    chain: &[Descriptor],
    len: u32,
) -> Result<()> {
    let memory = &session.memory;
    let mut bytes = Vec::new();
    for buffer in chain.iter().filter(|buffer| buffer.flags & WRITE != 0) {
        if memory.contains(buffer.address, u64::from(buffer.len)) {
            bytes.extend(memory.bytes(buffer.address, u64::from(buffer.len)));
        }
    }
    let answer = crate::framing::Answer {
        used_len: len.min(bytes.len() as u32),
        bytes,
    };
    ensure!(
        stand.subject.is_failure(&stand.subject.probe(), &answer),
        "a malformed request was answered with {len} bytes and no error status"
    );
    Ok(())
}

/// The probe's descriptors, laid out and not yet in the ring.
pub fn placed_probe(stand: &Stand<'_>, session: &Session) -> Placed {
    let request = stand.subject.probe();
    Framing::whole().place(&session.memory, &request.readable, request.writable)
}
