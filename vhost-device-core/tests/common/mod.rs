//! The other side of the crate, for its tests: guest memory, a driver, an event loop.

pub mod driver;
pub mod framing;
pub mod guest;
pub mod reactor;
pub mod rig;
pub mod stand;

/// So many random cases. A failure is printed in its smallest form and becomes a test of its own, so none is kept in a file.
pub fn cases(count: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::with_cases(count)
    }
}
