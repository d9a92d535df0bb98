//! Which bus serves an address. What is not here is refused: this is the list of what a guest may use.

use std::collections::BTreeMap;

use crate::address::Address;
use crate::config::Buses;

/// The position of the bus that serves each allowed address.
#[derive(Clone, Debug)]
pub struct Routes {
    seven: [Option<usize>; 128],
    ten: BTreeMap<u16, usize>,
}

impl Routes {
    /// The routes to these buses.
    pub fn new(buses: &Buses) -> Self {
        let mut routes = Self {
            seven: [None; 128],
            ten: BTreeMap::new(),
        };
        for (position, bus) in buses.iter().enumerate() {
            for address in bus.addresses() {
                routes.insert(address, position);
            }
        }
        routes
    }

    fn insert(&mut self, address: Address, bus: usize) {
        match address {
            Address::Seven(address) => {
                if let Some(slot) = self.seven.get_mut(usize::from(address)) {
                    *slot = Some(bus);
                }
            }
            Address::Ten(address) => {
                self.ten.insert(address, bus);
            }
        }
    }

    /// The bus that serves `address`; `None` if the guest may not use it.
    pub fn bus(&self, address: Address) -> Option<usize> {
        match address {
            Address::Seven(address) => self.seven.get(usize::from(address)).copied().flatten(),
            Address::Ten(address) => self.ten.get(&address).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_addresses_have_a_bus() {
        let buses: Buses = "6:0x20:t0x21,sim:0x30=regs".parse().unwrap();
        let routes = Routes::new(&buses);
        for address in 0..=0x7f {
            let expected = match address {
                0x20 => Some(0),
                0x30 => Some(1),
                _ => None,
            };
            assert_eq!(
                routes.bus(Address::Seven(address)),
                expected,
                "{address:#x}"
            );
        }
        for address in 0..=0x3ff {
            let expected = (address == 0x21).then_some(0);
            assert_eq!(
                routes.bus(Address::Ten(address)),
                expected,
                "ten bits, {address:#x}"
            );
        }
    }
}
