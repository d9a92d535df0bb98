//! Logs on stderr, behind the `log` facade.
//!
//! The `RUST_LOG` variable has env_logger's syntax; `--log-level` wins over it. A line is written whole or not at
//! all, and writing never waits: a line that stderr does not take at once is dropped, and the number of dropped lines
//! is told with the next one that is taken. A queue is thus never held up by a reader of the log.

mod clock;
pub(crate) mod json;
mod line;
mod sink;
#[cfg(test)]
mod tests;

use std::env;
use std::fmt;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use env_filter::Filter;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::cli::{CommonArgs, LogFormat};
use line::{Header, Line};
use sink::{Sink, Taken};

/// The prefix of this project's modules; other modules are libraries.
const OURS: &str = "vhost_device";

/// Starts logging for the program `name`; the first call of a process counts.
///
/// Panics are logged as well from then on, unless `RUST_BACKTRACE` asks for a trace.
pub fn init(args: &CommonArgs, name: &'static str) {
    let variable = env::var("RUST_LOG").ok();
    let (filter, problem) = filter(args.log_level.map(LevelFilter::from), variable.as_deref());
    let level = filter.filter();
    let Ok(sink) = Sink::stderr() else {
        return;
    };
    let logger = Logger::new(filter, args.log_format, name, sink);
    if log::set_boxed_logger(Box::new(logger)).is_err() {
        return;
    }
    log::set_max_level(level);
    if env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
    if let Some(problem) = problem {
        log::warn!("RUST_LOG is not understood and not used: {problem}");
    }
}

/// The filter, and what is wrong with the variable.
fn filter(level: Option<LevelFilter>, variable: Option<&str>) -> (Filter, Option<String>) {
    let mut problem = None;
    if let (None, Some(directives)) = (level, variable) {
        match env_filter::Builder::new().try_parse(directives) {
            Ok(builder) => return (builder.build(), None),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    let level = level.unwrap_or(LevelFilter::Info);
    let filter = env_filter::Builder::new()
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module(OURS, level)
        .build();
    (filter, problem)
}

struct Logger {
    filter: Filter,
    format: LogFormat,
    program: &'static str,
    sink: Sink,
    /// Lines that were not taken and not told about yet.
    dropped: AtomicU64,
    /// Whether the last thing that was taken is a piece of a line.
    torn: AtomicBool,
}

impl Logger {
    fn new(filter: Filter, format: LogFormat, program: &'static str, sink: Sink) -> Self {
        Self {
            filter,
            format,
            program,
            sink,
            dropped: AtomicU64::new(0),
            torn: AtomicBool::new(false),
        }
    }

    fn compose(&self, level: Level, target: &str, message: fmt::Arguments<'_>) -> Line {
        let header = Header {
            time: SystemTime::now(),
            level,
            program: self.program,
            target,
        };
        Line::compose(self.format, &header, message)
    }

    /// Tells how many lines were dropped. Says whether there is room for more.
    fn tell_dropped(&self) -> bool {
        let count = self.dropped.swap(0, Ordering::Relaxed);
        if count == 0 {
            return true;
        }
        let message = format_args!("{count} log lines were dropped because stderr took no more");
        let mut line = self.compose(Level::Warn, module_path!(), message);
        if self.torn.swap(false, Ordering::Relaxed) {
            line.start_anew();
        }
        let taken = self.write(&line);
        if !taken {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
        taken
    }

    /// Says whether the whole line was taken.
    fn write(&self, line: &Line) -> bool {
        let taken = self.sink.write(line.bytes());
        if taken == Taken::Part {
            self.torn.store(true, Ordering::Relaxed);
        }
        taken == Taken::All
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let line = self.compose(record.level(), record.target(), *record.args());
        if !self.tell_dropped() || !self.write(&line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}
