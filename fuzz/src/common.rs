//! The driver's side that the tests of the device model use.

#[path = "../../vhost-device-core/tests/common/driver.rs"]
pub mod driver;
#[path = "../../vhost-device-core/tests/common/framing.rs"]
pub mod framing;
#[path = "../../vhost-device-core/tests/common/guest.rs"]
pub mod guest;
