//! A chip of the host, through the kernel's character device and libgpiod.
//!
//! Each active line is a request of its own: it is configured and let go by itself, and its edges arrive on its own
//! descriptor, which the worker's reactor watches under the line's number.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libgpiod::chip;
use libgpiod::line::{self, EdgeKind, Offset, Settings, Value};
use libgpiod::request::{self, Buffer, Request};
use vhost_device_core::{Interest, Reactor, Ready, Token};

use super::{Chip, error};
use crate::config::{ChipId, HostSpec, MAX_LINES};
use crate::device::OpenError;
use crate::line::{Direction, Edge, Edges, Line};

/// What the host's tools show as the user of a line.
const CONSUMER: &str = "vhost-device-gpio";

/// The requests that libgpiod makes of the kernel for this module once the chip is open (linux/gpio.h):
/// GPIO_GET_CHIPINFO, GPIO_V2_GET_LINEINFO, GPIO_V2_GET_LINE, GPIO_V2_LINE_SET_CONFIG, GPIO_V2_LINE_GET_VALUES and
/// GPIO_V2_LINE_SET_VALUES.
#[cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "the daemon's sandbox")
)]
pub const IOCTLS: &[u64] = &[
    0x8044_b401,
    0xc100_b405,
    0xc250_b407,
    0xc110_b40d,
    0xc010_b40e,
    0xc010_b40f,
];

/// Edges read at a time: the kernel keeps 16 for one line.
const EVENTS: usize = 16;

/// A chip of the host, opened once for the life of the process, and the lines that guests get.
#[derive(Debug)]
pub struct HostChip {
    shared: Arc<Shared>,
    names: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    chip: Mutex<chip::Chip>,
    /// The chip's number of each of our lines.
    offsets: Vec<Offset>,
}

impl HostChip {
    /// Finds and opens a chip, and looks at its lines.
    ///
    /// # Errors
    /// If there is no such chip, it may not be used, or it does not have the lines.
    pub fn open(spec: &HostSpec) -> Result<Self, OpenError> {
        let path = find(&spec.chip)?;
        let fail = |error| OpenError::io("open", &spec.chip, &io_error(error));
        let chip = chip::Chip::open(&path).map_err(fail)?;
        let count = chip.info().map_err(fail)?.num_lines();
        let offsets = choose(spec, count)?;
        let name = |offset: &Offset| {
            let info = chip.line_info(*offset)?;
            // A line without a name has none to tell, nor has one whose name is not text.
            Ok(info.name().unwrap_or_default().to_owned())
        };
        let names = offsets
            .iter()
            .map(name)
            .collect::<Result<_, _>>()
            .map_err(fail)?;
        let shared = Shared {
            chip: Mutex::new(chip),
            offsets,
        };
        Ok(Self {
            shared: Arc::new(shared),
            names,
        })
    }

    /// The names of the guest's lines.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The chip for one connection.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn chip(&self) -> io::Result<LinuxChip> {
        let requests = self.shared.offsets.iter().map(|_| None).collect();
        Ok(LinuxChip {
            shared: Arc::clone(&self.shared),
            requests,
            buffer: Buffer::new(EVENTS).map_err(io_error)?,
        })
    }
}

fn find(id: &ChipId) -> Result<PathBuf, OpenError> {
    match id {
        ChipId::Number(number) => Ok(format!("/dev/gpiochip{number}").into()),
        ChipId::Path(path) => Ok(path.clone()),
        ChipId::Name(name) => {
            let node = Path::new("/dev").join(name);
            if libgpiod::is_gpiochip_device(&node) {
                Ok(node)
            } else {
                with_label(name)
            }
        }
    }
}

fn with_label(label: &str) -> Result<PathBuf, OpenError> {
    let name = ChipId::Name(label.into());
    let entries = fs::read_dir("/dev").map_err(|error| OpenError::io("read", "/dev", &error))?;
    let mut found = None;
    let mut failure = error(libc::ENOENT);
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_link = path.is_symlink();
        if is_link || !libgpiod::is_gpiochip_device(&path) {
            continue;
        }
        match label_of(&path) {
            Ok(its) if its != label => {}
            Ok(_) if found.is_some() => return Err(OpenError::Ambiguous(label.into())),
            Ok(_) => found = Some(path),
            // It may be the one that is looked for.
            Err(error) => failure = error,
        }
    }
    found.ok_or_else(|| OpenError::io("find a chip called", name, &failure))
}

fn label_of(path: &Path) -> io::Result<String> {
    let info = chip::Chip::open(&path)
        .and_then(|chip| chip.info())
        .map_err(io_error)?;
    Ok(info.label().unwrap_or_default().to_owned())
}

fn choose(spec: &HostSpec, count: usize) -> Result<Vec<Offset>, OpenError> {
    let Some(lines) = &spec.lines else {
        return match u16::try_from(count) {
            Ok(count @ 1..=MAX_LINES) => Ok((0..count.into()).collect()),
            _ => Err(OpenError::TooManyLines {
                chip: spec.chip.to_string(),
                count,
            }),
        };
    };
    match lines.iter().find(|line| usize::from(**line) >= count) {
        Some(line) => Err(OpenError::NoSuchLine {
            chip: spec.chip.to_string(),
            line: *line,
            count,
        }),
        None => Ok(lines.iter().map(|line| Offset::from(*line)).collect()),
    }
}

fn io_error(error: libgpiod::Error) -> io::Error {
    match error {
        libgpiod::Error::OperationFailed(_, number) => io::Error::from_raw_os_error(number.0),
        other => io::Error::other(other),
    }
}

/// A connection's use of a chip.
#[derive(Debug)]
pub struct LinuxChip {
    shared: Arc<Shared>,
    requests: Vec<Option<Active>>,
    buffer: Buffer,
}

/// A line that is held.
#[derive(Debug)]
struct Active {
    request: Request,
    offset: Offset,
    active_low: bool,
    watched: bool,
}

/// How a line is to be.
#[derive(Clone, Copy, Debug)]
enum Role {
    AsIs,
    Input(Edges),
    Output(bool),
}

impl Role {
    fn settings(self, active_low: bool) -> libgpiod::Result<Settings> {
        let mut settings = Settings::new()?;
        settings.set_active_low(active_low);
        match self {
            Self::AsIs => settings.set_direction(line::Direction::AsIs)?,
            Self::Input(edges) => settings
                .set_direction(line::Direction::Input)?
                .set_edge_detection(edge(edges))?,
            Self::Output(value) => settings
                .set_direction(line::Direction::Output)?
                .set_output_value(level(value))?,
        };
        Ok(settings)
    }

    fn config(self, offset: Offset, active_low: bool) -> libgpiod::Result<line::Config> {
        let mut config = line::Config::new()?;
        config.add_line_settings(&[offset], self.settings(active_low)?)?;
        Ok(config)
    }
}

fn edge(edges: Edges) -> Option<line::Edge> {
    match (edges.rising, edges.falling) {
        (false, false) => None,
        (true, false) => Some(line::Edge::Rising),
        (false, true) => Some(line::Edge::Falling),
        (true, true) => Some(line::Edge::Both),
    }
}

fn level(value: bool) -> Value {
    if value {
        Value::Active
    } else {
        Value::InActive
    }
}

impl Shared {
    fn offset(&self, line: Line) -> io::Result<Offset> {
        let offset = self.offsets.get(line.position());
        offset.copied().ok_or_else(|| error(libc::EINVAL))
    }

    fn info(&self, offset: Offset) -> io::Result<line::Info> {
        let chip = self.chip.lock().unwrap_or_else(PoisonError::into_inner);
        chip.line_info(offset).map_err(io_error)
    }

    /// Takes hold of a line. A line that the host has as active low stays so: the guest's values are those that the
    /// host's tools show.
    fn request(&self, line: Line, role: Role) -> io::Result<Active> {
        let offset = self.offset(line)?;
        let active_low = self.info(offset)?.is_active_low();
        self.try_request(offset, active_low, role)
            .map(|request| Active {
                request,
                offset,
                active_low,
                watched: false,
            })
            .map_err(io_error)
    }

    fn try_request(
        &self,
        offset: Offset,
        active_low: bool,
        role: Role,
    ) -> libgpiod::Result<Request> {
        let config = role.config(offset, active_low)?;
        let mut request = request::Config::new()?;
        request.set_consumer(CONSUMER)?;
        let chip = self.chip.lock().unwrap_or_else(PoisonError::into_inner);
        chip.request_lines(Some(&request), &config)
    }
}

impl Active {
    fn configure(&mut self, role: Role) -> io::Result<()> {
        let config = role
            .config(self.offset, self.active_low)
            .map_err(io_error)?;
        self.request
            .reconfigure_lines(&config)
            .map(drop)
            .map_err(io_error)
    }

    fn value(&self) -> io::Result<bool> {
        let value = self.request.value(self.offset).map_err(io_error)?;
        Ok(value == Value::Active)
    }

    /// Whether an edge waits. Reading would wait for one.
    fn has_events(&self) -> io::Result<bool> {
        self.request
            .wait_edge_events(Some(Duration::ZERO))
            .map_err(io_error)
    }

    fn watch(&mut self, token: Token, reactor: &mut dyn Reactor) -> io::Result<()> {
        if self.watched {
            return Ok(());
        }
        // SAFETY: the request owns the descriptor and outlives this call. The reactor keeps no copy; it is told before
        // the request goes.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.request.as_raw_fd()) };
        reactor.watch(descriptor, Interest::READABLE, token)?;
        self.watched = true;
        Ok(())
    }

    fn unwatch(&mut self, token: Token, reactor: &mut dyn Reactor) {
        if std::mem::take(&mut self.watched) {
            reactor.unwatch(token);
        }
    }
}

fn token(line: Line) -> Token {
    Token(line.0.into())
}

impl LinuxChip {
    fn slot(&mut self, line: Line) -> io::Result<&mut Option<Active>> {
        self.requests
            .get_mut(line.position())
            .ok_or_else(|| error(libc::EINVAL))
    }

    /// Gives a line its role, taking hold of it if need be.
    fn assume(&mut self, line: Line, role: Role) -> io::Result<&mut Active> {
        let shared = Arc::clone(&self.shared);
        let slot = self.slot(line)?;
        match slot {
            Some(active) => active.configure(role)?,
            None => *slot = Some(shared.request(line, role)?),
        }
        slot.as_mut().ok_or_else(|| error(libc::EINVAL))
    }

    /// Throws away edges from before the detection was last switched off.
    fn forget_events(&mut self, line: Line) -> io::Result<()> {
        let Some(Some(active)) = self.requests.get(line.position()) else {
            return Ok(());
        };
        if active.has_events()? {
            self.buffer
                .read_edge_events(&active.request)
                .map_err(io_error)?;
        }
        Ok(())
    }
}

impl Chip for LinuxChip {
    fn direction(&mut self, line: Line) -> io::Result<Direction> {
        let info = self.shared.info(self.shared.offset(line)?)?;
        match info.direction().map_err(io_error)? {
            line::Direction::Output => Ok(Direction::Out),
            line::Direction::Input | line::Direction::AsIs => Ok(Direction::In),
        }
    }

    fn set_input(&mut self, line: Line) -> io::Result<()> {
        self.assume(line, Role::Input(Edges::NONE)).map(drop)
    }

    fn set_output(&mut self, line: Line, value: bool) -> io::Result<()> {
        self.assume(line, Role::Output(value)).map(drop)
    }

    fn release(&mut self, line: Line, reactor: &mut dyn Reactor) {
        if let Ok(slot) = self.slot(line)
            && let Some(mut active) = slot.take()
        {
            active.unwatch(token(line), reactor);
        }
    }

    fn value(&mut self, line: Line) -> io::Result<bool> {
        match self.requests.get(line.position()) {
            Some(Some(active)) => active.value(),
            _ => self.shared.request(line, Role::AsIs)?.value(),
        }
    }

    fn set_value(&mut self, line: Line, value: bool) -> io::Result<()> {
        match self.slot(line)? {
            Some(active) => active
                .request
                .set_value(active.offset, level(value))
                .map(drop)
                .map_err(io_error),
            None => Err(error(libc::EPERM)),
        }
    }

    fn detect(&mut self, line: Line, edges: Edges, reactor: &mut dyn Reactor) -> io::Result<()> {
        if edges == Edges::NONE {
            if let Some(active) = self.slot(line)? {
                active.unwatch(token(line), reactor);
                active.configure(Role::Input(Edges::NONE))?;
            }
            return Ok(());
        }
        self.forget_events(line)?;
        self.assume(line, Role::Input(edges))?
            .watch(token(line), reactor)
    }

    fn events(
        &mut self,
        token: Token,
        ready: Ready,
        reactor: &mut dyn Reactor,
        seen: &mut dyn FnMut(Line, Edge),
    ) {
        let Ok(number) = u16::try_from(token.0) else {
            return;
        };
        let line = Line(number);
        let Some(Some(active)) = self.requests.get_mut(line.position()) else {
            return;
        };
        if ready.hangup || ready.error {
            log::warn!("line {line}: the chip is gone; the line interrupts no more");
            return active.unwatch(token, reactor);
        }
        // The line may have been configured anew since the reactor saw an edge.
        if !active.has_events().unwrap_or(false) {
            return;
        }
        let Ok(events) = self.buffer.read_edge_events(&active.request) else {
            return;
        };
        for event in events.flatten() {
            match event.event_type() {
                Ok(EdgeKind::Rising) => seen(line, Edge::Rising),
                Ok(EdgeKind::Falling) => seen(line, Edge::Falling),
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chip's lines that a guest gets as its lines 0, 1, ..., of a chip with `count`.
    fn chosen(lines: Option<&[u16]>, count: usize) -> Result<Vec<Offset>, OpenError> {
        let spec = HostSpec {
            chip: ChipId::Number(7),
            lines: lines.map(<[u16]>::to_vec),
        };
        choose(&spec, count)
    }

    #[test]
    fn without_a_list_the_guest_gets_every_line_under_its_own_number() {
        assert_eq!(chosen(None, 3).unwrap(), [0, 1, 2]);
        assert_eq!(chosen(None, MAX_LINES.into()).unwrap().len(), 1024);
        for count in [0, 1025, 65536, usize::MAX] {
            let error = chosen(None, count).unwrap_err();
            let message = format!("gpiochip7 has {count} lines; a guest can have from 1 to 1024");
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn lines_of_a_list_are_numbered_anew_in_its_order() {
        assert_eq!(chosen(Some(&[9, 2, 5]), 10).unwrap(), [9, 2, 5]);
        // A chip with more lines than a guest can have is served in part.
        assert_eq!(chosen(Some(&[1023]), 5000).unwrap(), [1023]);
    }

    #[test]
    fn a_line_beyond_the_chips_last_is_named() {
        for (lines, wrong) in [(&[10][..], 10), (&[0, 11, 12], 11)] {
            let error = chosen(Some(lines), 10).unwrap_err();
            let message = format!("gpiochip7 has no line {wrong}: it has 10");
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn numbers_and_paths_are_nodes_and_a_name_is_looked_for() {
        let number = find(&ChipId::Number(3)).unwrap();
        assert_eq!(number, Path::new("/dev/gpiochip3"));
        // A path is taken as it is: opening it tells what is wrong with it.
        let path = find(&ChipId::Path("./chip".into())).unwrap();
        assert_eq!(path, Path::new("./chip"));
        // `null` is a node, but not a chip's.
        let error = find(&ChipId::Name("null".into())).unwrap_err();
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
    }

    #[test]
    fn a_line_is_configured_for_its_role_and_keeps_its_polarity() {
        let edges = |rising, falling| Role::Input(Edges { rising, falling });
        let table = [
            (Role::AsIs, line::Direction::AsIs, None),
            (edges(false, false), line::Direction::Input, None),
            (
                edges(true, false),
                line::Direction::Input,
                Some(line::Edge::Rising),
            ),
            (
                edges(false, true),
                line::Direction::Input,
                Some(line::Edge::Falling),
            ),
            (
                edges(true, true),
                line::Direction::Input,
                Some(line::Edge::Both),
            ),
            (Role::Output(true), line::Direction::Output, None),
            (Role::Output(false), line::Direction::Output, None),
        ];
        for (role, direction, edge) in table {
            for active_low in [false, true] {
                let settings = role.settings(active_low).unwrap();
                assert_eq!(settings.active_low(), active_low, "{role:?}");
                assert_eq!(settings.direction().unwrap(), direction, "{role:?}");
                assert_eq!(settings.edge_detection().unwrap(), edge, "{role:?}");
                if let Role::Output(value) = role {
                    assert_eq!(settings.output_value().unwrap(), level(value));
                }
            }
        }
    }
}
