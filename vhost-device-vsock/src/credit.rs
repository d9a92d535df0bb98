//! Credit: how much each side of a connection may still send (VIRTIO 1.3, section 5.10.6.3).
//!
//! All counters run freely and wrap around at 2^32; only differences mean something.

use crate::wire::Header;

/// The guest sent more than it was allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowExceeded;

/// Both directions of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credit {
    /// What the guest may have on the way to the host, in bytes.
    window: u32,
    /// Bytes that came from the guest.
    received: u32,
    /// Those of them that the host took.
    forwarded: u32,
    /// `forwarded` as the guest knows it.
    told: u32,
    /// The guest's own window.
    peer_window: u32,
    /// Bytes that the guest's application took.
    peer_forwarded: u32,
    /// Bytes sent to the guest.
    sent: u32,
}

impl Credit {
    /// Nothing sent yet either way; the guest's window is not known, so nothing may be.
    pub fn new(window: u32) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// Takes note of what every packet from the guest tells about its side.
    pub fn learn(&mut self, header: &Header) {
        self.peer_window = header.buf_alloc.get();
        self.peer_forwarded = header.fwd_cnt.get();
    }

    /// Writes what every packet to the guest tells about this side.
    pub fn stamp(&mut self, header: &mut Header) {
        self.told = self.forwarded;
        header.buf_alloc = self.window.into();
        header.fwd_cnt = self.forwarded.into();
    }

    /// Bytes that may be sent to the guest now. A guest that says it took more than it was sent gets nothing.
    pub fn available(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_window.saturating_sub(in_flight)
    }

    /// The guest's window.
    pub fn peer_window(&self) -> u32 {
        self.peer_window
    }

    /// Counts `bytes` sent to the guest; at most [`available`](Self::available).
    pub fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Bytes from the guest that the host has not taken.
    pub fn held(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Counts `bytes` that came from the guest.
    ///
    /// # Errors
    /// [`WindowExceeded`]: then they are not counted.
    pub fn receive(&mut self, bytes: u32) -> Result<(), WindowExceeded> {
        let held = self.held().checked_add(bytes).ok_or(WindowExceeded)?;
        if held > self.window {
            return Err(WindowExceeded);
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// Counts `bytes` that the host took; at most [`held`](Self::held).
    pub fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Whether the guest should hear of new room.
    ///
    /// It should when it sees no more than half of its window free and all of it is; or, while the host is still busy with what
    /// it holds, for each quarter of the window. So a one-way transfer goes on without a stall, with a few updates for each
    /// window.
    pub fn owes_update(&self) -> bool {
        let news = self.forwarded.wrapping_sub(self.told);
        let used = self.received.wrapping_sub(self.told);
        match self.held() {
            0 => news > 0 && used >= self.window / 2,
            _ => news >= self.window / 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u32 = 1000;

    /// A sender as the specification describes it, with counters that started where ours did.
    struct Sender {
        sent: u32,
        window: u32,
        forwarded: u32,
    }

    impl Sender {
        fn free(&self) -> u32 {
            self.window - self.sent.wrapping_sub(self.forwarded)
        }

        fn learn(&mut self, credit: &mut Credit) {
            let mut header = Header::default();
            credit.stamp(&mut header);
            self.window = header.buf_alloc.get();
            self.forwarded = header.fwd_cnt.get();
        }
    }

    fn started_at(base: u32) -> (Credit, Sender) {
        let credit = Credit {
            received: base,
            forwarded: base,
            told: base,
            ..Credit::new(WINDOW)
        };
        let sender = Sender {
            sent: base,
            window: WINDOW,
            forwarded: base,
        };
        (credit, sender)
    }

    fn packet(window: u32, forwarded: u32) -> Header {
        Header {
            buf_alloc: window.into(),
            fwd_cnt: forwarded.into(),
            ..Header::default()
        }
    }

    proptest! {
        #[test]
        fn a_correct_sender_is_never_refused_and_never_stalls(
            base in prop_oneof![Just(0), Just(u32::MAX - 500), any::<u32>()],
            steps in prop::collection::vec((1..=WINDOW, 1..=WINDOW, any::<bool>()), 1..200),
        ) {
            let (mut credit, mut sender) = started_at(base);
            for (send, take, all) in steps {
                let send = send.min(sender.free());
                prop_assert_eq!(credit.receive(send), Ok(()));
                sender.sent = sender.sent.wrapping_add(send);
                prop_assert!(credit.held() <= WINDOW);
                let take = if all { credit.held() } else { take.min(credit.held()) };
                credit.forward(take);
                if credit.owes_update() {
                    sender.learn(&mut credit);
                    prop_assert!(!credit.owes_update());
                }
                // Whatever is held back: once all is taken, at least half of the window is to be seen.
                prop_assert!(credit.held() > 0 || sender.free() >= WINDOW / 2);
            }
        }

        #[test]
        fn what_is_sent_never_exceeds_the_window_of_the_guest(
            base in prop_oneof![Just(0), Just(u32::MAX - 500), any::<u32>()],
            steps in prop::collection::vec((1..2 * WINDOW, 0..2 * WINDOW), 1..200),
        ) {
            let mut credit = Credit { sent: base, ..Credit::new(WINDOW) };
            let mut taken = base;
            credit.learn(&packet(WINDOW, base));
            for (send, take) in steps {
                credit.send(send.min(credit.available()));
                let held = credit.sent.wrapping_sub(taken);
                prop_assert!(held <= WINDOW);
                taken = taken.wrapping_add(take.min(held));
                credit.learn(&packet(WINDOW, taken));
            }
        }
    }

    #[test]
    fn updates_are_few() {
        let (mut credit, mut sender) = started_at(u32::MAX - 100);
        let mut updates = 0;
        for _ in 0..100 {
            for _ in 0..10 {
                assert_eq!(credit.receive(WINDOW / 10), Ok(()));
                credit.forward(WINDOW / 10);
                if credit.owes_update() {
                    sender.learn(&mut credit);
                    updates += 1;
                }
            }
        }
        assert!(updates <= 200, "{updates} updates for 100 windows");
    }

    #[test]
    fn a_guest_that_sends_too_much_is_refused() {
        let mut credit = Credit::new(WINDOW);
        assert_eq!(credit.receive(WINDOW), Ok(()));
        assert_eq!(credit.receive(1), Err(WindowExceeded));
        assert_eq!(credit.receive(u32::MAX), Err(WindowExceeded));
        credit.forward(1);
        assert_eq!(credit.receive(1), Ok(()));
    }

    #[test]
    fn a_guest_that_lies_about_its_window_gets_nothing() {
        let mut credit = Credit::new(WINDOW);
        assert_eq!(credit.available(), 0, "its window is not known yet");
        credit.learn(&packet(WINDOW, 1));
        assert_eq!(credit.available(), 0, "it took more than was sent");
        credit.learn(&packet(WINDOW, 0));
        credit.send(600);
        credit.learn(&packet(500, 0));
        assert_eq!(credit.available(), 0, "its window shrank");
        credit.learn(&packet(u32::MAX, 0));
        assert_eq!(credit.available(), u32::MAX - 600);
    }
}
