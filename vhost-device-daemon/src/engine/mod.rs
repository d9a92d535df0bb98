//! The vhost-user engine: serves any [`Device`](vhost_device_core::Device) to a frontend.
//!
//! Each connection has a control thread, which reads messages ([`session`]) and knows what they mean ([`handler`]). Queues
//! are served by stations ([`station`]): on the main thread if the device has one worker that never waits for the host,
//! else on threads of their own. The two talk through mailboxes with a deadline ([`mailbox`], [`crew`]), so that a host
//! that does not answer never blocks the control socket.
//!
//! Protocol messages are parsed by the `vhost` crate; nothing outside this module names its types.

mod bell;
mod call;
mod crew;
mod deadlines;
mod dirty;
mod glance;
mod handler;
mod mailbox;
mod memory;
mod message;
mod reactor;
mod session;
mod sigbus;
mod station;
mod wait;

pub use bell::Bell;
pub use glance::Glance;
pub use reactor::{EventLoop, Tag};
pub use session::{Service, Session};
pub use sigbus::install as install_sigbus_handler;
pub use station::Station;
pub use wait::is_precise;
