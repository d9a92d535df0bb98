//! Looks at a path all the time, to catch the moment in which it is not there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ensure;
use crate::failure::Result;

/// A watch on one path, kept by a thread of its own until it is asked or dropped.
pub struct PathWatch {
    stop: Arc<AtomicBool>,
    absences: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl PathWatch {
    /// Begins to watch.
    pub fn start(path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let absences = Arc::new(AtomicU64::new(0));
        let looks = Arc::new(AtomicU64::new(0));
        let (path, ending, absent, looked) = (
            path.to_owned(),
            Arc::clone(&stop),
            Arc::clone(&absences),
            Arc::clone(&looks),
        );
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                if path.symlink_metadata().is_err() {
                    absent.fetch_add(1, Ordering::Relaxed);
                }
                looked.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        Self {
            stop,
            absences,
            looks,
            thread: Some(thread),
        }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watching thread does not panic");
        }
    }

    /// Ends the watch.
    ///
    /// # Errors
    /// When the path was absent at some look.
    pub fn never_absent(mut self) -> Result<()> {
        self.end();
        let absences = self.absences.load(Ordering::Relaxed);
        let looks = self.looks.load(Ordering::Relaxed);
        ensure!(
            absences == 0,
            "the socket was absent at {absences} of {looks} looks"
        );
        Ok(())
    }
}

impl Drop for PathWatch {
    fn drop(&mut self) {
        self.end();
    }
}
