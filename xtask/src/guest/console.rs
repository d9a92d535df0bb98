//! The guest's answer on its terminal: what the script wrote, framed by a word that no script writes by chance.
//!
//! The first process of the guest writes `MARK begin`, the script's output, an empty line and `MARK end STATUS`.

/// Cuts the script's output and exit status out of what arrives.
pub struct Console {
    begin: Vec<u8>,
    end: Vec<u8>,
    state: State,
    pending: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Booting,
    Running,
    Ended(i32),
}

impl Console {
    /// A console that waits for the frame made with `mark`.
    pub fn new(mark: &str) -> Self {
        Self {
            begin: format!("{mark} begin").into_bytes(),
            end: format!("\n{mark} end ").into_bytes(),
            state: State::Booting,
            pending: Vec::new(),
        }
    }

    /// Takes what arrived and returns the part of it that is the script's output.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        if self.state == State::Booting {
            self.look_for_begin();
        }
        match self.state {
            State::Running => self.output(),
            State::Booting | State::Ended(_) => Vec::new(),
        }
    }

    /// The script's exit status, once it has ended.
    pub fn status(&self) -> Option<i32> {
        match self.state {
            State::Ended(status) => Some(status),
            State::Booting | State::Running => None,
        }
    }

    /// Whether the script has begun.
    pub fn has_begun(&self) -> bool {
        self.state != State::Booting
    }

    fn look_for_begin(&mut self) {
        let Some(at) = find(&self.pending, &self.begin) else {
            return;
        };
        let after = at + self.begin.len();
        let Some(line_end) = find(&self.pending[after..], b"\n") else {
            return;
        };
        self.pending.drain(..=after + line_end);
        self.state = State::Running;
    }

    fn output(&mut self) -> Vec<u8> {
        if let Some(at) = find(&self.pending, &self.end) {
            let status = &self.pending[at + self.end.len()..];
            let Some(line_end) = find(status, b"\n") else {
                return self.pending.drain(..at).collect();
            };
            let status = String::from_utf8_lossy(&status[..line_end]);
            // a status that is no number cannot be a success
            self.state = State::Ended(status.trim().parse().unwrap_or(-1));
            self.pending.truncate(at);
            return std::mem::take(&mut self.pending);
        }
        let held = self.possible_frame();
        let ready = self.pending.len() - held;
        self.pending.drain(..ready).collect()
    }

    /// How many bytes at the end may be the beginning of the closing frame.
    fn possible_frame(&self) -> usize {
        let longest = self.end.len().min(self.pending.len());
        (1..=longest)
            .rev()
            .find(|length| self.pending.ends_with(&self.end[..*length]))
            .unwrap_or(0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"early noise\nM begin\r\none\ntwo M end 9\n\nM end 3\ntrailing\n";

    #[test]
    fn the_frame_is_found_however_the_bytes_arrive() {
        for size in 1..ANSWER.len() {
            let mut console = Console::new("M");
            let output: Vec<u8> = ANSWER
                .chunks(size)
                .flat_map(|chunk| console.feed(chunk))
                .collect();
            assert_eq!(output, b"one\ntwo M end 9\n", "chunks of {size}");
            assert_eq!(console.status(), Some(3));
        }
    }

    #[test]
    fn output_without_a_final_newline_stays_as_it_is() {
        let mut console = Console::new("M");
        assert_eq!(console.feed(b"M begin\nabc\nM end 0\r\n"), b"abc");
        assert_eq!(console.status(), Some(0));
    }

    #[test]
    fn output_is_passed_on_at_once() {
        let mut console = Console::new("M");
        console.feed(b"M begin\n");
        assert_eq!(console.feed(b"prompt# "), b"prompt# ");
        assert_eq!(console.feed(b"\n"), b"");
        assert_eq!(console.feed(b"M en"), b"");
        assert_eq!(console.feed(b"ough"), b"\nM enough");
        assert_eq!(console.status(), None);
    }
}
