//! The catalogue.
use crate::conformance::Case;
/// A case by its number.
///
/// # Panics
/// For an unknown number.
pub fn case(id: &str) -> &'static Case {
    CASES
        .iter()
        .find(|case| case.id == id)
        .unwrap_or_else(|| panic!("no case {id}"))
}
/// None yet.
pub const CASES: &[Case] = &[];
