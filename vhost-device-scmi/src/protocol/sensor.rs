//! The sensor management protocol (DEN0056, section 4.7).
//!
//! While notifications of a sensor are enabled it is read once per update interval; otherwise only when it is asked for.

use std::time::Duration;

use super::{
    Answer, Call, Command, Hosts, Operation, Protocol, Purpose, Reply, Slot, Wait, bit, count,
    counts, domain, name, no_statistics, page,
};
use crate::name::Name;
use crate::outbox::{MAX_DELAYED, Outbox};
use crate::quantity::{Interval, Quantity, Values, exponent_bits};
use crate::schedule::{Job, Later};
use crate::wave::Wave;
use crate::wire::{LONG_NAME, Reader, SHORT_NAME, Status, Writer, protocol};

const TRIP_POINT_EVENT: u8 = 0;
const UPDATE: u8 = 1;

/// Timestamps are nanoseconds.
const TIMESTAMP_EXPONENT: i8 = -9;

const SENSOR_BYTES: usize = 28 + 24;
const AXIS_SENSOR_BYTES: usize = 28;
const AXIS_BYTES: usize = 28 + 20;
const AXIS_NAME_BYTES: usize = 4 + LONG_NAME;

/// Bits of the sensor configuration.
mod config {
    pub const ENABLED: u32 = 1 << 0;
    pub const TIMESTAMPS: u32 = 1 << 1;
    pub const ROUND_SHIFT: u32 = 9;
    pub const INTERVAL: u32 = 0xffff_f800;
    pub const ALL: u32 = INTERVAL | 3 << ROUND_SHIFT | TIMESTAMPS | ENABLED;
}

/// Where readings come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A curve for each axis.
    Waves(Vec<Wave>),
    /// The host.
    Host(Slot),
}

/// What a sensor is. A sensor without named axes measures one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensor {
    /// What it is called.
    pub name: Name,
    /// What it measures.
    pub quantity: Quantity,
    /// Readings are multiples of ten to this power, -16 to 15.
    pub scale: i8,
    /// The axes' names.
    pub axes: Vec<Name>,
    /// The smallest and the largest reading.
    pub range: (i64, i64),
    /// The difference that can be told, as a multiple of a power of ten.
    pub resolution: (u32, i8),
    /// The update intervals to choose from, the longest first; the first one is in use unless the agent chooses.
    pub intervals: Vec<Interval>,
    /// How many trip points the agent can set.
    pub trips: u8,
    /// Readings can be asynchronous, and take this long then.
    pub delay: Option<Duration>,
    /// Where readings come from.
    pub source: Source,
}

/// A reading that the agent wants to know of when it is passed.
#[derive(Clone, Copy, Debug, Default)]
struct Trip {
    rising: bool,
    falling: bool,
    value: i64,
}

/// A sensor and what the agent set up.
#[derive(Debug)]
struct State {
    sensor: Sensor,
    /// What curves are multiplied with.
    factor: f64,
    is_enabled: bool,
    has_timestamps: bool,
    interval: Interval,
    tells_updates: bool,
    tells_trips: bool,
    trips: Vec<Trip>,
    readings: u64,
    /// The reading that trip points were last compared with.
    last: Option<i64>,
    /// When it is read next for the sake of notifications.
    due: Option<Duration>,
    /// The host is reading for the sake of notifications.
    is_updating: bool,
}

impl State {
    fn new(sensor: Sensor) -> Self {
        let interval = sensor.intervals.first().copied();
        Self {
            factor: 10f64.powi(-i32::from(sensor.scale)),
            is_enabled: true,
            has_timestamps: false,
            interval: interval.unwrap_or(Interval {
                seconds: 1,
                exponent: 0,
            }),
            tells_updates: false,
            tells_trips: false,
            trips: vec![Trip::default(); usize::from(sensor.trips)],
            readings: 0,
            last: None,
            due: None,
            is_updating: false,
            sensor,
        }
    }

    /// Numbers of the simulation.
    fn sample(&mut self, waves: usize, now: Duration) -> Values {
        let readings = self.readings;
        self.readings += 1;
        let Source::Waves(list) = &self.sensor.source else {
            return Values::default();
        };
        list.iter()
            .take(waves)
            // a conversion stops at the limits of the type
            .map(|wave| (wave.at(now, readings) * self.factor).round() as i64)
            .collect()
    }

    fn axes(&self) -> usize {
        self.sensor.axes.len().max(1)
    }

    fn has_trips(&self) -> bool {
        self.tells_trips && self.trips.iter().any(|trip| trip.rising || trip.falling)
    }

    /// Starts or stops reading for the sake of notifications.
    fn plan(&mut self, now: Duration) {
        let is_wanted = self.is_enabled && (self.tells_updates || self.has_trips());
        if !is_wanted {
            self.due = None;
            self.last = None;
        } else if self.due.is_none() {
            self.due = Some(now.saturating_add(self.interval.duration()));
        }
    }

    fn write_values(
        &self,
        values: &Values,
        now: Duration,
        out: &mut Writer<'_>,
    ) -> Result<(), Status> {
        let stamp = if self.has_timestamps {
            u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
        } else {
            0
        };
        for number in values.numbers() {
            out.signed_double(*number)?;
            out.double(stamp)?;
        }
        Ok(())
    }

    fn attributes_low(&self, events: bool) -> u32 {
        bit(31, self.sensor.delay.is_some() && events)
            | bit(30, events)
            | bit(29, self.sensor.name.is_long())
            | exponent_bits(TIMESTAMP_EXPONENT) << 10
            | bit(9, true)
            | bit(8, self.sensor.axes.is_empty())
            | if events {
                u32::from(self.sensor.trips)
            } else {
                0
            }
    }

    fn attributes_high(&self) -> u32 {
        let axes = u32::try_from(self.sensor.axes.len()).unwrap_or(0);
        bit(8, axes > 0) | axes << 16 | kind(&self.sensor)
    }

    fn describe(&self, id: usize, events: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        out.word(u32::try_from(id).unwrap_or(u32::MAX))?;
        out.word(self.attributes_low(events))?;
        out.word(self.attributes_high())?;
        out.bytes(&self.sensor.name.short())?;
        if self.sensor.axes.is_empty() {
            // its own consumption is not known
            out.word(0)?;
            write_limits(&self.sensor, out)?;
        }
        Ok(())
    }
}

fn kind(sensor: &Sensor) -> u32 {
    u32::from(sensor.quantity.0) | exponent_bits(sensor.scale) << 11
}

fn write_limits(sensor: &Sensor, out: &mut Writer<'_>) -> Result<(), Status> {
    let (resolution, exponent) = sensor.resolution;
    out.word(resolution & 0x07ff_ffff | exponent_bits(exponent) << 27)?;
    out.signed_double(sensor.range.0)?;
    out.signed_double(sensor.range.1)
}

/// The sensor protocol.
#[derive(Debug)]
pub struct Sensors {
    list: Vec<State>,
}

impl Sensors {
    /// A platform with these sensors.
    pub fn new(sensors: Vec<Sensor>) -> Self {
        Self {
            list: sensors.into_iter().map(State::new).collect(),
        }
    }

    fn sensor(&mut self, input: &mut Reader<'_>) -> Result<(usize, &mut State), Status> {
        domain(&mut self.list, input)
    }

    fn description_get(&mut self, call: &mut Call<'_>) -> Answer {
        let first = call.input.word()?;
        // with the largest entries, which also bounds how many there are
        let (range, _) = page(self.list.len(), first, &call.out, 4, AXIS_SENSOR_BYTES)?;
        let head = call.out.length();
        call.out.word(0)?;
        let mut next = range.start;
        for (id, state) in self.list.iter().enumerate().skip(range.start) {
            let size = if state.sensor.axes.is_empty() {
                SENSOR_BYTES
            } else {
                AXIS_SENSOR_BYTES
            };
            if call.out.room() < size {
                break;
            }
            state.describe(id, call.events, &mut call.out)?;
            next = id + 1;
        }
        if next == range.start {
            return Err(Status::ProtocolError);
        }
        let remaining = u32::try_from(self.list.len() - next).unwrap_or(u32::MAX);
        call.out
            .patch(head, counts(&(range.start..next), remaining));
        Ok(Reply::Done)
    }

    fn trip_point_notify(&mut self, call: &mut Call<'_>) -> Answer {
        let now = call.now;
        let (_, state) = self.sensor(&mut call.input)?;
        state.tells_trips = call.input.flags(1)? != 0;
        state.plan(now);
        Ok(Reply::Done)
    }

    fn trip_point_config(&mut self, call: &mut Call<'_>) -> Answer {
        let now = call.now;
        let (_, state) = self.sensor(&mut call.input)?;
        let control = call.input.flags(0xff3)?;
        let value = call.input.double()? as i64;
        let number = usize::try_from(control >> 4).unwrap_or(usize::MAX);
        let trip = state
            .trips
            .get_mut(number)
            .ok_or(Status::InvalidParameters)?;
        *trip = Trip {
            rising: control & 1 != 0,
            falling: control & 2 != 0,
            value,
        };
        state.plan(now);
        Ok(Reply::Done)
    }

    fn reading_get(&mut self, call: &mut Call<'_>) -> Answer {
        let now = call.now;
        let (id, state) = self.sensor(&mut call.input)?;
        let is_asynchronous = call.input.flags(1)? != 0;
        if !state.is_enabled {
            return Err(Status::Denied);
        }
        if is_asynchronous {
            let delay = state.sensor.delay.filter(|_| call.events);
            let due = now.saturating_add(delay.ok_or(Status::NotSupported)?);
            call.schedule.add(Later {
                due,
                header: call.header,
                job: Job::SensorReading { sensor: id },
                is_told: true,
            })?;
            return Ok(Reply::Done);
        }
        match state.sensor.source {
            Source::Waves(_) => {
                let values = state.sample(state.axes(), now);
                state.write_values(&values, now, &mut call.out)?;
                Ok(Reply::Done)
            }
            Source::Host(slot) => {
                let number = call.hosts.ask(slot, Operation::Read)?;
                Ok(Reply::Wait(Wait {
                    slot,
                    number,
                    purpose: Purpose::Reading(id),
                }))
            }
        }
    }

    fn axis_description_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, state) = self.sensor(&mut call.input)?;
        let sensor = &state.sensor;
        let first = call.input.word()?;
        let (range, remaining) = page(sensor.axes.len(), first, &call.out, 4, AXIS_BYTES)?;
        call.out.word(axis_counts(&range, remaining))?;
        for (id, name) in sensor
            .axes
            .iter()
            .enumerate()
            .take(range.end)
            .skip(range.start)
        {
            call.out.word(u32::try_from(id).unwrap_or(u32::MAX))?;
            call.out.word(bit(9, name.is_long()) | bit(8, true))?;
            call.out.word(kind(sensor))?;
            call.out.bytes(&name.short())?;
            write_limits(sensor, &mut call.out)?;
        }
        Ok(Reply::Done)
    }

    fn list_update_intervals(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, state) = self.sensor(&mut call.input)?;
        let intervals = &state.sensor.intervals;
        let first = call.input.word()?;
        let (range, remaining) = page(intervals.len(), first, &call.out, 4, 4)?;
        call.out.word(counts(&range, remaining))?;
        for interval in intervals.get(range).unwrap_or_default() {
            call.out.word(interval.listed())?;
        }
        Ok(Reply::Done)
    }

    fn config_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, state) = self.sensor(&mut call.input)?;
        let word =
            bit(0, state.is_enabled) | bit(1, state.has_timestamps) | state.interval.configured();
        call.out.word(word)?;
        Ok(Reply::Done)
    }

    fn config_set(&mut self, call: &mut Call<'_>) -> Answer {
        let now = call.now;
        let (_, state) = self.sensor(&mut call.input)?;
        let word = call.input.flags(config::ALL)?;
        let wanted = Interval::from_configuration(word);
        // without digits nothing is asked for
        if wanted.seconds != 0 {
            let rounding = word >> config::ROUND_SHIFT & 3;
            let chosen = choose(&state.sensor.intervals, wanted, rounding)?;
            if chosen != state.interval {
                state.interval = chosen;
                state.due = None;
            }
        }
        state.is_enabled = word & config::ENABLED != 0;
        state.has_timestamps = word & config::TIMESTAMPS != 0;
        state.plan(now);
        Ok(Reply::Done)
    }

    fn continuous_update_notify(&mut self, call: &mut Call<'_>) -> Answer {
        let now = call.now;
        let (_, state) = self.sensor(&mut call.input)?;
        state.tells_updates = call.input.flags(1)? != 0;
        state.plan(now);
        Ok(Reply::Done)
    }

    fn name_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, state) = self.sensor(&mut call.input)?;
        name(&state.sensor.name, &mut call.out)
    }

    fn axis_name_get(&mut self, call: &mut Call<'_>) -> Answer {
        let (_, state) = self.sensor(&mut call.input)?;
        let axes = &state.sensor.axes;
        let first = call.input.word()?;
        let (range, remaining) = page(axes.len(), first, &call.out, 4, AXIS_NAME_BYTES)?;
        call.out.word(axis_counts(&range, remaining))?;
        for (id, name) in axes.iter().enumerate().take(range.end).skip(range.start) {
            call.out.word(u32::try_from(id).unwrap_or(u32::MAX))?;
            call.out.bytes(&name.long())?;
        }
        Ok(Reply::Done)
    }

    /// When a sensor has to be read next for the sake of notifications.
    pub fn next_due(&self) -> Option<Duration> {
        self.list.iter().filter_map(|state| state.due).min()
    }

    /// Reads what is due. Where the host has to be asked, `wait` is told.
    pub fn tick(
        &mut self,
        now: Duration,
        hosts: &mut dyn Hosts,
        outbox: &mut Outbox,
        mut wait: impl FnMut(Wait),
    ) {
        for id in 0..self.list.len() {
            let Some(state) = self.list.get_mut(id) else {
                continue;
            };
            if state.due.is_none_or(|due| due > now) {
                continue;
            }
            // What was missed is not made up for. No interval is shorter than a millisecond.
            let interval = state.interval.duration().max(Duration::from_millis(1));
            state.due = Some(now.saturating_add(interval));
            match state.sensor.source {
                Source::Waves(_) => {
                    let values = state.sample(state.axes(), now);
                    self.update(id, &values, now, outbox);
                }
                Source::Host(slot) if !state.is_updating => {
                    if let Ok(number) = hosts.ask(slot, Operation::Read) {
                        state.is_updating = true;
                        let purpose = Purpose::Update(id);
                        wait(Wait {
                            slot,
                            number,
                            purpose,
                        });
                    }
                }
                Source::Host(_) => {}
            }
        }
    }

    /// The host answered what was asked for the sake of notifications.
    pub fn updated(
        &mut self,
        id: usize,
        values: Result<Values, Status>,
        now: Duration,
        outbox: &mut Outbox,
    ) {
        if let Some(state) = self.list.get_mut(id) {
            state.is_updating = false;
        }
        if let Ok(values) = values {
            self.update(id, &values, now, outbox);
        }
    }

    fn update(&mut self, id: usize, values: &Values, now: Duration, outbox: &mut Outbox) {
        let Some(state) = self.list.get_mut(id) else {
            return;
        };
        let source = u32::try_from(id).unwrap_or(u32::MAX);
        if state.tells_updates {
            let state = &*state;
            outbox.notify(protocol::SENSOR, UPDATE, id, |out| {
                out.word(source)?;
                state.write_values(values, now, out)
            });
        }
        let Some(value) = values.numbers().first().copied() else {
            return;
        };
        if let Some(last) = state.last.replace(value)
            && state.tells_trips
        {
            for (number, trip) in state.trips.iter().enumerate() {
                let rose = trip.rising && last < trip.value && value >= trip.value;
                let fell = trip.falling && last > trip.value && value <= trip.value;
                if rose || fell {
                    // a trip point is a source of its own
                    outbox.notify(
                        protocol::SENSOR,
                        TRIP_POINT_EVENT,
                        id << 8 | number,
                        |out| {
                            out.word(source)?;
                            out.word(bit(16, rose) | u32::try_from(number).unwrap_or(0xff))
                        },
                    );
                }
            }
        }
    }

    /// Begins an asynchronous reading that is due: the numbers, or whom to ask for them.
    ///
    /// # Errors
    /// The status to tell.
    pub fn read_later(
        &mut self,
        id: usize,
        now: Duration,
        hosts: &mut dyn Hosts,
    ) -> Result<Result<Values, Wait>, Status> {
        let state = self.list.get_mut(id).ok_or(Status::NotFound)?;
        match state.sensor.source {
            Source::Waves(_) => Ok(Ok(state.sample(state.axes(), now))),
            Source::Host(slot) => {
                let number = hosts.ask(slot, Operation::Read)?;
                let purpose = Purpose::Reading(id);
                Ok(Err(Wait {
                    slot,
                    number,
                    purpose,
                }))
            }
        }
    }

    /// Writes readings as responses have them; delayed ones begin with the sensor.
    ///
    /// # Errors
    /// If there is no room, or the host has not given a number for each axis.
    pub fn write_reading(
        &self,
        id: usize,
        is_delayed: bool,
        values: &Values,
        now: Duration,
        out: &mut Writer<'_>,
    ) -> Result<(), Status> {
        let state = self.list.get(id).ok_or(Status::NotFound)?;
        if values.numbers().len() != state.axes() {
            return Err(Status::HardwareError);
        }
        if is_delayed {
            out.word(u32::try_from(id).unwrap_or(u32::MAX))?;
        }
        state.write_values(values, now, out)
    }
}

fn axis_counts(range: &std::ops::Range<usize>, remaining: u32) -> u32 {
    // there are MAX_AXES at most
    u32::try_from(range.len()).unwrap_or(0) | remaining << 26
}

/// The interval that is nearest to the wanted one: at most as long (0), at least as long (1), or either (2).
fn choose(intervals: &[Interval], wanted: Interval, rounding: u32) -> Result<Interval, Status> {
    let wanted = wanted.duration();
    let distance = |one: &&Interval| one.duration().abs_diff(wanted);
    let fits = |one: &&Interval| match rounding {
        0 => one.duration() <= wanted,
        1 => one.duration() >= wanted,
        _ => true,
    };
    if rounding > 2 {
        return Err(Status::InvalidParameters);
    }
    let nearest = intervals.iter().filter(fits).min_by_key(distance);
    nearest.copied().ok_or(Status::InvalidParameters)
}

impl Protocol for Sensors {
    const VERSION: u32 = 0x3_0001;
    const COMMANDS: &'static [Command<Self>] = &[
        // the one that has to be fast goes first
        Command::new(0x6, 8, Self::reading_get),
        Command::new(0x3, 4, Self::description_get),
        Command::new(0x4, 8, Self::trip_point_notify).for_events(),
        Command::new(0x5, 16, Self::trip_point_config).for_events(),
        Command::new(0x7, 8, Self::axis_description_get),
        Command::new(0x8, 8, Self::list_update_intervals),
        Command::new(0x9, 4, Self::config_get),
        Command::new(0xa, 8, Self::config_set),
        Command::new(0xb, 8, Self::continuous_update_notify).for_events(),
        Command::new(0xc, 4, Self::name_get),
        Command::new(0xd, 8, Self::axis_name_get),
    ];

    fn attributes(&self, events: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        let is_asynchronous = events && self.list.iter().any(|state| state.sensor.delay.is_some());
        let outstanding = if is_asynchronous {
            MAX_DELAYED as u32
        } else {
            0
        };
        out.word(count(&self.list) | outstanding << 16)?;
        no_statistics(out)
    }

    /// The configuration of the sensors themselves, such as the update interval, goes back too: nobody else uses them.
    fn forget(&mut self) {
        for state in &mut self.list {
            let readings = state.readings;
            *state = State {
                readings,
                ..State::new(state.sensor.clone())
            };
        }
    }
}

/// The size of a short name is part of the sizes above.
const _: () = assert!(AXIS_SENSOR_BYTES == 12 + SHORT_NAME);
