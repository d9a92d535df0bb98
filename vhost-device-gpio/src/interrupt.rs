//! The interrupt of one line (VIRTIO 1.3, sections 5.18.6.6 and 5.18.7), as a state machine.
//!
//! An interrupt is enabled by a request and unmasked by an event buffer; an event takes the buffer, which masks it again.
//! Edges are latched while it is masked, levels are not: they are looked at.

use crate::line::{Edge, Trigger};

/// Whether the interrupt is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Disabled,
    /// The driver asked for it and was refused. It may not have noticed.
    Refused,
    Enabled(Trigger),
}

/// One line's interrupt; `B` is an event buffer.
#[derive(Debug)]
pub struct Interrupt<B> {
    state: State,
    latched: bool,
    buffer: Option<B>,
}

impl<B> Default for Interrupt<B> {
    fn default() -> Self {
        Self {
            state: State::Disabled,
            latched: false,
            buffer: None,
        }
    }
}

/// How a buffer goes back to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// There is an interrupt.
    Valid,
    /// There cannot be one.
    Invalid,
}

impl<B> Interrupt<B> {
    /// What it is enabled for.
    pub fn trigger(&self) -> Option<Trigger> {
        match self.state {
            State::Enabled(trigger) => Some(trigger),
            State::Disabled | State::Refused => None,
        }
    }

    /// The driver enables it, and the host plays along. Returns a buffer if there is an interrupt already.
    pub fn enable(&mut self, trigger: Trigger, value: impl FnOnce() -> bool) -> Option<B> {
        self.state = State::Enabled(trigger);
        self.latched = false;
        match trigger {
            Trigger::Level(active) if self.buffer.is_some() && value() == active => {
                self.buffer.take()
            }
            _ => None,
        }
    }

    /// The driver enables it, and that is refused. Buffers are kept until the driver disables it.
    pub fn refuse(&mut self) {
        self.state = State::Refused;
        self.latched = false;
    }

    /// The driver disables it: what was latched is forgotten, and the buffer, if there is one, goes back as invalid.
    pub fn disable(&mut self) -> Option<B> {
        self.state = State::Disabled;
        self.latched = false;
        self.buffer.take()
    }

    /// The driver unmasks it with a buffer. Returns a buffer that goes back at once.
    pub fn unmask(&mut self, buffer: B, value: impl FnOnce() -> bool) -> Option<(B, Return)> {
        if self.buffer.is_some() {
            return Some((buffer, Return::Invalid));
        }
        match self.state {
            State::Disabled => return Some((buffer, Return::Invalid)),
            State::Enabled(Trigger::Edge(_)) if std::mem::take(&mut self.latched) => {
                return Some((buffer, Return::Valid));
            }
            State::Enabled(Trigger::Level(active)) if value() == active => {
                return Some((buffer, Return::Valid));
            }
            State::Refused | State::Enabled(_) => {}
        }
        self.buffer = Some(buffer);
        None
    }

    /// The host saw an edge. Returns the buffer if that is an interrupt. A level is looked at again: it may be over.
    pub fn sense(&mut self, edge: Edge, value: impl FnOnce() -> bool) -> Option<B> {
        match self.state {
            State::Enabled(Trigger::Edge(edges)) if edges.contains(edge) => {
                self.latched = self.buffer.is_none();
                self.buffer.take()
            }
            State::Enabled(Trigger::Level(active)) if self.buffer.is_some() => {
                if value() == active {
                    self.buffer.take()
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// The event queue stops: the buffer goes back as invalid, which masks the interrupt. It stays enabled.
    pub fn mask(&mut self) -> Option<B> {
        self.buffer.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::line::Edges;

    const RISING: Trigger = Trigger::Edge(Edges {
        rising: true,
        falling: false,
    });
    const HIGH: Trigger = Trigger::Level(true);

    fn no_look() -> bool {
        panic!("the line was looked at without need")
    }

    fn enabled(trigger: Trigger) -> Interrupt<u32> {
        let mut interrupt = Interrupt::default();
        assert_eq!(interrupt.enable(trigger, no_look), None);
        interrupt
    }

    #[test]
    fn an_edge_takes_the_buffer_and_one_that_comes_masked_takes_the_next() {
        let mut interrupt = enabled(RISING);
        assert_eq!(interrupt.unmask(1, no_look), None);
        assert_eq!(interrupt.sense(Edge::Falling, no_look), None);
        assert_eq!(interrupt.sense(Edge::Rising, no_look), Some(1));
        assert_eq!(interrupt.sense(Edge::Rising, no_look), None, "masked");
        assert_eq!(interrupt.sense(Edge::Rising, no_look), None, "latched once");
        assert_eq!(interrupt.unmask(2, no_look), Some((2, Return::Valid)));
        assert_eq!(interrupt.unmask(3, no_look), None, "nothing is latched now");
    }

    #[test]
    fn a_level_is_not_latched_but_seen_again_as_long_as_it_lasts() {
        let mut interrupt = enabled(HIGH);
        assert_eq!(interrupt.sense(Edge::Rising, no_look), None, "masked");
        assert_eq!(interrupt.unmask(1, || false), None, "and over");
        assert_eq!(interrupt.sense(Edge::Rising, || false), None, "too short");
        assert_eq!(interrupt.sense(Edge::Rising, || true), Some(1));
        assert_eq!(interrupt.unmask(2, || true), Some((2, Return::Valid)));
        assert_eq!(interrupt.unmask(3, || false), None);
    }

    #[test]
    fn disabling_gives_the_buffer_back_and_forgets_what_was_latched() {
        let mut interrupt = enabled(RISING);
        assert_eq!(interrupt.unmask(1, no_look), None);
        assert_eq!(interrupt.disable(), Some(1));
        assert_eq!(interrupt.disable(), None);
        interrupt.enable(RISING, no_look);
        assert_eq!(interrupt.sense(Edge::Rising, no_look), None);
        assert_eq!(interrupt.disable(), None);
        interrupt.enable(RISING, no_look);
        assert_eq!(interrupt.unmask(2, no_look), None);
    }

    #[test]
    fn a_buffer_without_an_enabled_interrupt_and_a_second_one_come_back_invalid() {
        let mut interrupt = Interrupt::default();
        assert_eq!(interrupt.unmask(1, no_look), Some((1, Return::Invalid)));
        interrupt.enable(RISING, no_look);
        assert_eq!(interrupt.unmask(2, no_look), None);
        assert_eq!(interrupt.unmask(3, no_look), Some((3, Return::Invalid)));
        assert_eq!(interrupt.sense(Edge::Rising, no_look), Some(2));
    }

    #[test]
    fn a_refused_interrupt_keeps_its_buffer_until_it_is_disabled() {
        let mut interrupt = Interrupt::default();
        interrupt.refuse();
        assert_eq!(interrupt.unmask(1, no_look), None);
        assert_eq!(interrupt.sense(Edge::Rising, no_look), None);
        assert_eq!(interrupt.disable(), Some(1));
    }

    #[test]
    fn a_level_that_is_active_when_a_refused_interrupt_is_enabled_counts() {
        let mut interrupt = Interrupt::default();
        interrupt.refuse();
        assert_eq!(interrupt.unmask(1, no_look), None);
        assert_eq!(interrupt.enable(HIGH, || true), Some(1));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enable(Trigger),
        Refuse,
        Disable,
        Unmask,
        Mask,
        Set(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let trigger = prop_oneof![
            Just(RISING),
            Just(HIGH),
            Just(Trigger::Level(false)),
            Just(Trigger::Edge(Edges {
                rising: true,
                falling: true
            })),
        ];
        prop_oneof![
            2 => trigger.prop_map(Step::Enable),
            1 => Just(Step::Refuse),
            1 => Just(Step::Disable),
            4 => Just(Step::Unmask),
            1 => Just(Step::Mask),
            4 => any::<bool>().prop_map(Step::Set),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: each buffer comes back at most once, at most one is kept, none while the
        /// interrupt is disabled, none comes back as valid unless the interrupt is enabled, and while it is enabled and
        /// unmasked nothing that should interrupt is missed.
        #[test]
        fn buffers_are_neither_lost_nor_doubled(steps in prop::collection::vec(step(), 1..200)) {
            let mut interrupt = Interrupt::default();
            let mut value = false;
            let mut given = 0u32;
            let mut kept: Option<u32> = None;
            for step in steps {
                match step {
                    Step::Enable(trigger) => {
                        if let Some(buffer) = interrupt.enable(trigger, || value) {
                            prop_assert_eq!(kept.take(), Some(buffer));
                        }
                    }
                    Step::Refuse => interrupt.refuse(),
                    Step::Disable => prop_assert_eq!(interrupt.disable(), kept.take()),
                    Step::Mask => prop_assert_eq!(interrupt.mask(), kept.take()),
                    Step::Unmask => {
                        given += 1;
                        match interrupt.unmask(given, || value) {
                            None => prop_assert_eq!(kept.replace(given), None),
                            Some((buffer, status)) => {
                                prop_assert_eq!(buffer, given);
                                if status == Return::Valid {
                                    prop_assert!(kept.is_none() && interrupt.trigger().is_some());
                                }
                            }
                        }
                    }
                    Step::Set(to) if to != value => {
                        value = to;
                        let edge = if to { Edge::Rising } else { Edge::Falling };
                        let due = interrupt.trigger().is_some_and(|t| t.edges().contains(edge));
                        let sensed = interrupt.sense(edge, || value);
                        if due {
                            prop_assert_eq!(sensed, kept.take());
                        } else {
                            prop_assert_eq!(sensed, None);
                        }
                    }
                    Step::Set(_) => {}
                }
                if interrupt.trigger() == Some(Trigger::Level(value)) {
                    prop_assert!(kept.is_none(), "an active level with a buffer at hand");
                }
                if interrupt.state == State::Disabled {
                    prop_assert!(kept.is_none() && !interrupt.latched);
                }
            }
        }
    }
}
