//! The configuration space at every offset and length: C17.

use crate::conformance::Outcome;
use crate::control::{Control, ControlError};
use crate::failure::{At, Result};
use crate::message::{self, protocol, request};
use crate::session::{Options, negotiate};
use crate::stand::Stand;
use crate::subject::Subject;
use crate::{ensure, fail};

/// Largest offset + length of the configuration space.
const SPACE: u32 = 4096;

/// C17: reads and writes anywhere give the structure's bytes and nothing else.
pub fn config_anywhere(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let offered = stand.negotiated()?.protocol_features()?;
    if offered & protocol::CONFIG == 0 {
        ensure!(
            subject.config().is_empty(),
            "the device has a configuration but does not offer to read it"
        );
        stand.close()?;
        return Ok(Outcome::NotApplicable(
            "the device has no configuration space",
        ));
    }
    let mut reader = Reader::new(&stand)?;
    for (offset, len) in reads(subject.config().len() as u32) {
        reader.read(offset, len)?;
    }
    drop(reader);
    overflowing_reads(&stand)?;
    writes(&stand)?;
    stand.close()?;
    Ok(Outcome::Pass)
}

/// Every offset with every length around the structure; each offset and each length of the space once; all edges.
fn reads(len: u32) -> Vec<(u32, u32)> {
    let near = len + 17;
    let mut all: Vec<(u32, u32)> = (0..near)
        .flat_map(|offset| (1..=near).map(move |len| (offset, len)))
        .collect();
    let edges = [
        0, 1, 8, 0xff, 0x100, 0x101, 2047, 2048, 4000, 4084, 4085, 4094, 4095,
    ];
    let lengths = [
        1, 2, 4, 8, 16, 255, 256, 257, 1024, 2048, 4000, 4084, 4085, 4095, 4096,
    ];
    all.extend(
        edges
            .iter()
            .flat_map(|offset| lengths.map(|len| (*offset, len))),
    );
    all.extend((0..SPACE).map(|offset| (offset, 1)));
    all.extend((1..=SPACE).map(|len| (0, len)));
    all.extend((0..SPACE).step_by(61).map(|offset| (offset, 4)));
    all.retain(|(offset, len)| offset + len <= SPACE);
    all
}

/// Reads the configuration, connecting again whenever the daemon answers with a hang-up.
struct Reader<'a> {
    stand: &'a Stand<'a>,
    control: Control,
    config: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(stand: &'a Stand<'a>) -> Result<Self> {
        Ok(Self {
            stand,
            control: stand.negotiated()?,
            config: stand.subject.config(),
        })
    }

    fn read(&mut self, offset: u32, len: u32) -> Result<()> {
        let inside = (offset + len) as usize <= self.config.len();
        match self.control.config(offset, len) {
            Ok(bytes) => self.check(offset, &bytes),
            Err(error) if inside => {
                fail!("GET_CONFIG {offset}+{len} inside the structure: {error}")
            }
            Err(ControlError::Refused(_)) => Ok(()),
            Err(ControlError::Closed) => {
                self.stand.note_hang_up();
                self.control = self.stand.negotiated()?;
                Ok(())
            }
            Err(error) => fail!("GET_CONFIG {offset}+{len}: {error}"),
        }
    }

    /// The structure's bytes where there are some, zero behind them.
    fn check(&self, offset: u32, bytes: &[u8]) -> Result<()> {
        for (at, byte) in (offset as usize..).zip(bytes) {
            let wanted = self.config.get(at).copied().unwrap_or(0);
            ensure!(
                *byte == wanted,
                "configuration byte {at} read as {byte:#x} instead of {wanted:#x} (read of {offset}+{})",
                bytes.len()
            );
        }
        Ok(())
    }
}

fn overflowing_reads(stand: &Stand<'_>) -> Result<()> {
    let cases: [(u32, u32, usize); 7] = [
        (u32::MAX, 1, 1),
        (u32::MAX - 3, 8, 8),
        (1, u32::MAX, 8),
        (0, SPACE + 1, 8),
        (SPACE, 1, 1),
        (0, 64, 8),
        (0, 4, 64),
    ];
    for (offset, size, payload) in cases {
        let control = stand.negotiated()?;
        let body = message::config(offset, size, &vec![0; payload]);
        stand
            .refused(&control, request::GET_CONFIG, &body, &[])
            .at(format!("{offset}+{size} with a payload of {payload}"))?;
    }
    Ok(())
}

/// Writes every byte of the structure with the value it has: writable ones are taken, others refused, none changes.
fn writes(stand: &Stand<'_>) -> Result<()> {
    let config = stand.subject.config();
    let writable = stand.subject.writable_config();
    let may_write = |at: u32| writable.iter().any(|range| range.contains(&at));
    for at in 0..config.len() as u32 {
        let value = config[at as usize];
        if may_write(at) {
            write_taken(stand, at, &[value])?;
        } else {
            write_refused(stand, at, &[value ^ 0xff])?;
        }
    }
    for range in &writable {
        let bytes = &config[range.start as usize..range.end as usize];
        write_taken(stand, range.start, bytes)?;
    }
    let len = config.len() as u32;
    for (offset, size) in [
        (len, 1),
        (len, 64),
        (len + 100, 4),
        (SPACE - 4, 4),
        (0, SPACE - 12),
    ] {
        write_refused(stand, offset, &vec![0; size as usize])?;
    }
    let control = stand.negotiated()?;
    let body = message::config(u32::MAX - 1, 4, &[0; 4]);
    stand
        .refused(&control, request::SET_CONFIG, &body, &[])
        .at("offset + length overflows")?;
    unchanged(stand)
}

fn write_taken(stand: &Stand<'_>, offset: u32, data: &[u8]) -> Result<()> {
    let control = stand.negotiated()?;
    control.set_config(offset, data).at(format!(
        "write of a driver-writable field at {offset}+{}",
        data.len()
    ))
}

fn write_refused(stand: &Stand<'_>, offset: u32, data: &[u8]) -> Result<()> {
    let mut control = stand.connect()?;
    let options: Options = stand.options();
    negotiate(&mut control, &options)?;
    let body = message::config(offset, data.len() as u32, data);
    stand
        .refused(&control, request::SET_CONFIG, &body, &[])
        .at(format!("write of {offset}+{}", data.len()))?;
    Ok(())
}

fn unchanged(stand: &Stand<'_>) -> Result<()> {
    let config = stand.subject.config();
    if config.is_empty() {
        return Ok(());
    }
    let control = stand.negotiated()?;
    let now = control.config(0, config.len() as u32)?;
    ensure!(
        now == config,
        "refused writes changed the configuration: {now:02x?}"
    );
    Ok(())
}
