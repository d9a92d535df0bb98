//! What devices add to the devicetree of their guest: children of their own nodes, and consumers.

pub mod gpio;
pub mod scmi;
