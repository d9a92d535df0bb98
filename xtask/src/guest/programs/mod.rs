//! Programs of the host that a guest meets: what is at the other end of a device while a smoke script runs.

pub mod vsock;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// How long a program may wait for its peer.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);

/// Starts a device's programs, which find their daemon by the run's folder.
pub type Start = fn(&Path) -> Result<Programs>;

/// Running programs; they take nobody new after they were dropped.
#[derive(Debug, Default)]
pub struct Programs {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Programs {
    /// Adds one that listens, and serves each of its streams on a thread.
    pub fn serve(
        &mut self,
        listener: UnixListener,
        program: impl Fn(UnixStream) -> Result<()> + Clone + Send + 'static,
    ) -> Result<()> {
        listener.set_nonblocking(true)?;
        let over = Arc::clone(&self.over);
        self.threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => attend(stream, program.clone()),
                    Err(_) => thread::sleep(POLL),
                }
            }
        }));
        Ok(())
    }
}

/// What goes wrong with one stream shows at its other end.
fn attend(stream: UnixStream, program: impl Fn(UnixStream) -> Result<()> + Send + 'static) {
    thread::spawn(move || patient(stream).and_then(program));
}

/// A stream on which nothing waits for ever.
pub fn patient(stream: UnixStream) -> Result<UnixStream> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Listens for streams at a path.
pub fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // one that panicked has nobody to serve any more
            let _ = thread.join();
        }
    }
}
