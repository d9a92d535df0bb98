//! One small device for each level of effort. They know the crate and their host resource, and nothing of who drives them.

pub mod disk;
pub mod echo;
pub mod stream;
