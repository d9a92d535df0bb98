//! The person's terminal while an interactive guest uses it.

use std::io::{IsTerminal, Stdin, stdin};

use anyhow::{Context, Result, ensure};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Raw mode: every key goes to the guest, which has a line editor of its own. Undone on drop.
pub struct Raw {
    stdin: Stdin,
    before: Termios,
}

impl Raw {
    /// Switches the terminal on standard input.
    pub fn enter() -> Result<Self> {
        let stdin = stdin();
        ensure!(
            stdin.is_terminal(),
            "an interactive guest needs a terminal on standard input"
        );
        let before = tcgetattr(&stdin).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // without a terminal there is nothing to put right
        let _ = tcsetattr(&self.stdin, OptionalActions::Drain, &self.before);
    }
}

/// Rows and columns of the terminal, or those of an old one.
pub fn window() -> (u16, u16) {
    match tcgetwinsize(stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}
