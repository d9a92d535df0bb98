//! Readings from the buffer of an IIO device: its driver puts a scan there whenever its trigger fires.
//!
//! The buffer runs from the first reading until the guest leaves. Meanwhile many drivers do not allow their channels to be
//! read in sysfs, so that all readings are taken from it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost_device_core::pause;

use super::OpenError;
use super::attribute::{Attribute, optional_text};
use super::helper::Place;
use crate::decimal::Linear;
use crate::quantity::Values;
use crate::scan::{Format, Layout};

/// Scans that the kernel keeps.
const SCANS: i64 = 64;
/// Most bytes that are read at a time.
const MAX_READ: usize = 4096;
/// How long a scan counts when no newer one has come.
const FRESH: Duration = Duration::from_secs(1);
/// How often it is looked for a scan while one is waited for.
const PACE: Duration = Duration::from_millis(1);

/// The buffer of a device, of which some channels are wanted.
#[derive(Debug)]
pub struct Buffer {
    node: File,
    switch: Attribute,
    length: Attribute,
    /// Which channels there are, and whether they are wanted.
    channels: Vec<(Attribute, bool)>,
    layout: Layout,
    linears: Vec<Linear>,
    /// Readings are multiples of ten to this power, in the kernel's unit.
    exponent: i8,
    is_running: bool,
    /// The end of what was read, where a scan is not whole yet.
    rest: Vec<u8>,
    last: Option<(Instant, Values)>,
}

/// Opens the buffer behind `node` for the channels `wanted` of the device in `folder`.
pub fn open(
    folder: &Path,
    node: &Path,
    wanted: &[String],
    linears: Vec<Linear>,
    exponent: i8,
) -> Result<Buffer, OpenError> {
    let elements = folder.join("scan_elements");
    let mut formats = Vec::new();
    for channel in wanted {
        formats.push((
            element(&elements, channel, "index")?,
            element::<Format>(&elements, channel, "type")?,
        ));
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(node)
        .map_err(|error| OpenError::io("open", node.display(), error))?;
    Ok(Buffer {
        node: file,
        switch: Attribute::open_writable(&folder.join("buffer/enable"))?,
        length: Attribute::open_writable(&folder.join("buffer/length"))?,
        channels: channels(&elements, wanted)?,
        layout: Layout::new(&formats),
        linears,
        exponent,
        is_running: false,
        rest: Vec::new(),
        last: None,
    })
}

/// What sysfs tells of an element of scans.
fn element<T: std::str::FromStr>(folder: &Path, channel: &str, what: &str) -> Result<T, OpenError> {
    let path = folder.join(format!("{channel}_{what}"));
    let text = optional_text(&path).unwrap_or_default();
    text.parse()
        .map_err(|_| OpenError::Bad(format!("{} says {text:?}", path.display())))
}

/// The switches of all channels: those that are not wanted have to be off.
fn channels(folder: &Path, wanted: &[String]) -> Result<Vec<(Attribute, bool)>, OpenError> {
    let entries = folder
        .read_dir()
        .map_err(|error| OpenError::io("look into", folder.display(), error))?;
    let mut channels = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if let Some(channel) = name.to_str().and_then(|name| name.strip_suffix("_en")) {
            let is_wanted = wanted.iter().any(|one| one == channel);
            channels.push((Attribute::open_writable(&entry.path())?, is_wanted));
        }
    }
    Ok(channels)
}

impl Buffer {
    fn run(&mut self) -> io::Result<()> {
        if self.is_running {
            return Ok(());
        }
        // channels can only be chosen while it does not run
        self.switch.write(0)?;
        for (channel, is_wanted) in &mut self.channels {
            channel.write(i64::from(*is_wanted))?;
        }
        self.length.write(SCANS)?;
        self.switch.write(1)?;
        self.is_running = true;
        self.rest.clear();
        self.last = None;
        Ok(())
    }

    /// Takes in all scans that are there.
    fn take_in(&mut self) -> io::Result<()> {
        let mut bytes = [0; MAX_READ];
        loop {
            match self.node.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => self.rest.extend(bytes.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.decode()?;
        }
    }

    /// Keeps the newest whole scan, and what comes behind it.
    fn decode(&mut self) -> io::Result<()> {
        let length = self.layout.length().max(1);
        let whole = self.rest.len() / length * length;
        let Some(scan) = self.rest.get(whole.saturating_sub(length)..whole) else {
            return Ok(());
        };
        if let Some(numbers) = self.layout.decode(scan) {
            let convert = |(number, linear): (i64, &Linear)| linear.apply(number, self.exponent);
            let values: Option<Values> = numbers
                .into_iter()
                .zip(&self.linears)
                .map(convert)
                .collect();
            let values = values.ok_or_else(|| io::Error::other("the reading is too large"))?;
            self.last = Some((Instant::now(), values));
        }
        self.rest.drain(..whole);
        Ok(())
    }
}

impl Place for Buffer {
    /// The newest scan; waits for one if there is none, or none for too long.
    fn read(&mut self) -> io::Result<Values> {
        self.run()?;
        loop {
            self.take_in()?;
            if let Some((at, values)) = &self.last
                && at.elapsed() < FRESH
            {
                return Ok(*values);
            }
            pause(PACE);
        }
    }

    fn restore(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_running) {
            self.switch.write(0)?;
        }
        Ok(())
    }
}
