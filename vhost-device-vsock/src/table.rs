//! The table of connections: slots that events name, and addresses that packets name.
//!
//! A connection may lose its address before it ends, when the guest is done with it and the host is not; the address is then
//! free for a new connection.

use std::collections::BTreeMap;

/// Most connections of a guest, those included that are being set up or only wait for a host program.
pub const MAX_CONNECTIONS: usize = 16 * 1024;

/// The first of the ports that are given to host programs; guests and well-known services use lower ones.
const FIRST_PORT: u32 = 1 << 30;

/// How many there are.
const PORTS: u32 = 1 << 30;

/// What packets of one connection have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The guest's port.
    pub guest_port: u32,
    /// The other side's port.
    pub peer_port: u32,
    /// The other side: the host or another guest.
    pub peer_cid: u64,
}

/// A place in the table. Places are used again, by another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    index: u16,
    generation: u16,
}

impl Slot {
    /// As 31 bits, for a token.
    pub fn bits(self) -> u32 {
        u32::from(self.generation & 0x7fff) << 16 | u32::from(self.index)
    }

    /// The slot that [`bits`](Self::bits) are of.
    pub fn from_bits(bits: u32) -> Self {
        Self {
            index: bits as u16,
            generation: (bits >> 16) as u16 & 0x7fff,
        }
    }
}

/// No more connections, or the address is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

struct Entry<T> {
    generation: u16,
    occupant: Option<Occupant<T>>,
}

struct Occupant<T> {
    address: Option<Address>,
    value: T,
}

/// Connections of one guest.
pub struct Table<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u16>,
    /// Ports are chosen by guests and by programs: in a hash table they could be chosen to collide, and a seed for one takes a system
    /// call for each thread.
    slots: BTreeMap<Address, Slot>,
    /// The last address looked up: packets come in runs.
    recent: Option<(Address, Slot)>,
    next_port: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            slots: BTreeMap::new(),
            recent: None,
            next_port: 0,
        }
    }
}

impl<T> Table<T> {
    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Adds a connection that has no address yet.
    ///
    /// # Errors
    /// [`Refused`] if there are [`MAX_CONNECTIONS`].
    pub fn insert(&mut self, value: T) -> Result<Slot, Refused> {
        let occupant = Some(Occupant {
            address: None,
            value,
        });
        if let Some(index) = self.free.pop()
            && let Some(entry) = self.entries.get_mut(usize::from(index))
        {
            entry.occupant = occupant;
            let generation = entry.generation;
            return Ok(Slot { index, generation });
        }
        let index = u16::try_from(self.entries.len())
            .ok()
            .filter(|index| usize::from(*index) < MAX_CONNECTIONS)
            .ok_or(Refused)?;
        self.entries.push(Entry {
            generation: 0,
            occupant,
        });
        Ok(Slot {
            index,
            generation: 0,
        })
    }

    /// Gives a connection its address.
    ///
    /// # Errors
    /// [`Refused`] if another one has it.
    pub fn bind(&mut self, slot: Slot, address: Address) -> Result<(), Refused> {
        if self.slots.contains_key(&address) {
            return Err(Refused);
        }
        let occupant = self.occupant_mut(slot).ok_or(Refused)?;
        occupant.address = Some(address);
        self.slots.insert(address, slot);
        Ok(())
    }

    /// Takes a connection's address away.
    pub fn unbind(&mut self, slot: Slot) {
        let address = self
            .occupant_mut(slot)
            .and_then(|occupant| occupant.address.take());
        if let Some(address) = address {
            self.slots.remove(&address);
            self.recent = None;
        }
    }

    /// Ends a connection; its address is free from now on.
    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        self.unbind(slot);
        let entry = self
            .entries
            .get_mut(usize::from(slot.index))
            .filter(|entry| entry.generation == slot.generation)?;
        let occupant = entry.occupant.take()?;
        entry.generation = entry.generation.wrapping_add(1) & 0x7fff;
        self.free.push(slot.index);
        Some(occupant.value)
    }

    /// The connection that packets with this address belong to.
    pub fn find(&mut self, address: &Address) -> Option<Slot> {
        if let Some((recent, slot)) = &self.recent
            && recent == address
        {
            return Some(*slot);
        }
        let slot = self.slots.get(address).copied()?;
        self.recent = Some((*address, slot));
        Some(slot)
    }

    /// A connection's address, while it has one.
    pub fn address(&self, slot: Slot) -> Option<Address> {
        let entry = self.entries.get(usize::from(slot.index))?;
        let occupant = entry.occupant.as_ref()?;
        occupant
            .address
            .filter(|_| entry.generation == slot.generation)
    }

    /// The connection in a slot, unless it has ended.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.occupant_mut(slot).map(|occupant| &mut occupant.value)
    }

    /// A port of the peer that no connection to this port of the guest has, or had lately: they are given out in turn.
    pub fn free_port(&mut self, guest_port: u32, peer_cid: u64) -> Option<u32> {
        // One more than there can be connections is enough.
        for _ in 0..=MAX_CONNECTIONS {
            let peer_port = FIRST_PORT + self.next_port;
            self.next_port = (self.next_port + 1) % PORTS;
            let address = Address {
                guest_port,
                peer_port,
                peer_cid,
            };
            if !self.slots.contains_key(&address) {
                return Some(peer_port);
            }
        }
        None
    }

    /// All connections' slots.
    pub fn slots(&self) -> Vec<Slot> {
        let numbered = (0u16..).zip(&self.entries);
        numbered
            .filter(|(_, entry)| entry.occupant.is_some())
            .map(|(index, entry)| Slot {
                index,
                generation: entry.generation,
            })
            .collect()
    }

    fn occupant_mut(&mut self, slot: Slot) -> Option<&mut Occupant<T>> {
        let entry = self.entries.get_mut(usize::from(slot.index))?;
        entry
            .occupant
            .as_mut()
            .filter(|_| entry.generation == slot.generation)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn address(guest_port: u32, peer_port: u32) -> Address {
        Address {
            guest_port,
            peer_port,
            peer_cid: 2,
        }
    }

    #[test]
    fn a_slot_used_again_is_another_one() {
        let mut table = Table::default();
        let first = table.insert("first").unwrap();
        table.bind(first, address(1, 2)).unwrap();
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second").unwrap();
        assert_ne!(first, second);
        assert_eq!(Slot::from_bits(second.bits()), second);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.find(&address(1, 2)), None);
        assert_eq!(table.get_mut(second), Some(&mut "second"));
    }

    #[test]
    fn an_address_is_free_once_its_connection_lets_go_of_it() {
        let mut table = Table::default();
        let (old, new) = (table.insert(1).unwrap(), table.insert(2).unwrap());
        table.bind(old, address(1, 2)).unwrap();
        assert_eq!(table.find(&address(1, 2)), Some(old));
        assert_eq!(table.bind(new, address(1, 2)), Err(Refused));
        table.unbind(old);
        assert_eq!(table.find(&address(1, 2)), None);
        table.bind(new, address(1, 2)).unwrap();
        table.remove(old);
        assert_eq!(table.find(&address(1, 2)), Some(new));
    }

    #[test]
    fn there_is_a_limit() {
        let mut table = Table::default();
        for number in 0..MAX_CONNECTIONS {
            table.insert(number).unwrap();
        }
        assert_eq!(table.insert(0), Err(Refused));
        let some = table.slots()[77];
        table.remove(some);
        assert!(table.insert(0).is_ok());
    }

    #[test]
    fn ports_in_use_are_not_given_out_also_after_a_wrap() {
        let mut table: Table<()> = Table {
            next_port: PORTS - 1,
            ..Table::default()
        };
        for port in [FIRST_PORT, FIRST_PORT + PORTS - 1] {
            let slot = table.insert(()).unwrap();
            table.bind(slot, address(7, port)).unwrap();
        }
        assert_eq!(table.free_port(7, 2), Some(FIRST_PORT + 1));
        assert_eq!(table.free_port(7, 2), Some(FIRST_PORT + 2));
    }

    proptest! {
        #[test]
        fn every_connection_is_found_by_its_address_and_no_other(
            steps in prop::collection::vec((0..4u8, 0..6u32, 0..6u32), 1..300),
        ) {
            let mut table = Table::default();
            let mut model: Vec<(Slot, Option<Address>)> = Vec::new();
            for (what, a, b) in steps {
                let at = (a * 6 + b) as usize % model.len().max(1);
                match what {
                    0 => model.push((table.insert(()).unwrap(), None)),
                    1 if !model.is_empty() && model[at].1.is_none() => {
                        let taken = model.iter().any(|(_, one)| *one == Some(address(a, b)));
                        let bound = table.bind(model[at].0, address(a, b));
                        prop_assert_eq!(bound.is_err(), taken);
                        if !taken {
                            model[at].1 = Some(address(a, b));
                        }
                    }
                    2 if !model.is_empty() => {
                        table.unbind(model[at].0);
                        model[at].1 = None;
                    }
                    3 if !model.is_empty() => {
                        let (slot, _) = model.swap_remove(at);
                        prop_assert!(table.remove(slot).is_some());
                    }
                    _ => {}
                }
                let expected = model.iter().find(|(_, one)| *one == Some(address(a, b)));
                prop_assert_eq!(table.find(&address(a, b)), expected.map(|(slot, _)| *slot));
                let slots: HashSet<_> = table.slots().iter().map(|slot| slot.bits()).collect();
                prop_assert_eq!(slots.len(), model.len());
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
