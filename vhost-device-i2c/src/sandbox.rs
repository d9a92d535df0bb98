//! What the daemon needs of the host while it serves. Adapters and files are open by then.

use vhost_device_daemon::Profile;
use vhost_device_daemon::confine::{Call, Sysno};

use crate::config::{Bus, Buses, Chip, Temperature};
use crate::host;

pub fn profile(lists: &[Buses]) -> Profile {
    let buses = lists.iter().flat_map(Buses::iter);
    buses.fold(Profile::new(), |profile, bus| match bus {
        Bus::Adapter { .. } => {
            profile.call(Call::new(Sysno::ioctl).one_of(1, host::IOCTLS_OF_TRANSFERS))
        }
        Bus::Sim { chips } => chips
            .iter()
            .fold(profile, |profile, (_, chip)| of(profile, chip)),
    })
}

fn of(profile: Profile, chip: &Chip) -> Profile {
    match chip {
        // host/sim/eeprom.rs
        Chip::Eeprom { file: Some(_), .. } => profile.call(Sysno::pread64).call(Sysno::pwrite64),
        // host/sim/lm75.rs
        Chip::Lm75(Temperature::File(_)) => profile.call(Sysno::pread64),
        Chip::Eeprom { file: None, .. } | Chip::Lm75(_) | Chip::Registers | Chip::Stuck => profile,
    }
}
