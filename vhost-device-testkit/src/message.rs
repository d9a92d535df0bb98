//! The vhost-user wire format: request numbers, feature bits and message bodies.
//!
//! Numbers follow the vhost-user protocol specification; a body is plain bytes, so that a test can send any of
//! them wrong. All integers are in the machine's own byte order, as the protocol says.

/// Requests from the frontend (header field `request`).
pub mod request {
    /// The device's virtio feature bits.
    pub const GET_FEATURES: u32 = 1;
    /// The virtio feature bits agreed on.
    pub const SET_FEATURES: u32 = 2;
    /// The sender owns the session from now on.
    pub const SET_OWNER: u32 = 3;
    /// Deprecated: disable all rings.
    pub const RESET_OWNER: u32 = 4;
    /// The guest's memory regions.
    pub const SET_MEM_TABLE: u32 = 5;
    /// Shared memory for the dirty-page log.
    pub const SET_LOG_BASE: u32 = 6;
    /// An eventfd for log changes.
    pub const SET_LOG_FD: u32 = 7;
    /// Size of a ring.
    pub const SET_VRING_NUM: u32 = 8;
    /// Addresses of a ring's three parts.
    pub const SET_VRING_ADDR: u32 = 9;
    /// Next available index to process.
    pub const SET_VRING_BASE: u32 = 10;
    /// Stops a ring; answers the next available index.
    pub const GET_VRING_BASE: u32 = 11;
    /// Eventfd that the driver kicks.
    pub const SET_VRING_KICK: u32 = 12;
    /// Eventfd that interrupts the driver.
    pub const SET_VRING_CALL: u32 = 13;
    /// Eventfd that tells of ring errors.
    pub const SET_VRING_ERR: u32 = 14;
    /// The protocol feature bits on offer.
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    /// The protocol feature bits agreed on.
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    /// Number of queues the device has.
    pub const GET_QUEUE_NUM: u32 = 17;
    /// Enables or disables a ring.
    pub const SET_VRING_ENABLE: u32 = 18;
    /// Network only: broadcast a fake RARP.
    pub const SEND_RARP: u32 = 19;
    /// Network only: host MTU.
    pub const NET_SET_MTU: u32 = 20;
    /// A socket for requests of the device to the frontend.
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    /// IOTLB update.
    pub const IOTLB_MSG: u32 = 22;
    /// Byte order of a legacy ring.
    pub const SET_VRING_ENDIAN: u32 = 23;
    /// Reads the device's configuration space.
    pub const GET_CONFIG: u32 = 24;
    /// Writes the device's configuration space.
    pub const SET_CONFIG: u32 = 25;
    /// Crypto only: opens a session.
    pub const CREATE_CRYPTO_SESSION: u32 = 26;
    /// Crypto only: closes a session.
    pub const CLOSE_CRYPTO_SESSION: u32 = 27;
    /// A postcopy migration is coming.
    pub const POSTCOPY_ADVISE: u32 = 28;
    /// A postcopy migration begins.
    pub const POSTCOPY_LISTEN: u32 = 29;
    /// A postcopy migration is over.
    pub const POSTCOPY_END: u32 = 30;
    /// Asks for a buffer to track in-flight requests in.
    pub const GET_INFLIGHT_FD: u32 = 31;
    /// Hands the in-flight buffer back.
    pub const SET_INFLIGHT_FD: u32 = 32;
    /// GPU only: socket of the GPU protocol.
    pub const GPU_SET_SOCKET: u32 = 33;
    /// Disables all rings and resets the device.
    pub const RESET_DEVICE: u32 = 34;
    /// In-band kick.
    pub const VRING_KICK: u32 = 35;
    /// How many memory regions fit.
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    /// Adds a memory region.
    pub const ADD_MEM_REG: u32 = 37;
    /// Removes a memory region.
    pub const REM_MEM_REG: u32 = 38;
    /// The virtio device status, as the guest wrote it.
    pub const SET_STATUS: u32 = 39;
    /// The virtio device status.
    pub const GET_STATUS: u32 = 40;
    /// Asks for a shared object.
    pub const GET_SHARED_OBJECT: u32 = 41;
    /// Begins the transfer of device state.
    pub const SET_DEVICE_STATE_FD: u32 = 42;
    /// Result of the transfer of device state.
    pub const CHECK_DEVICE_STATE: u32 = 43;
    /// Shared memory regions of the device.
    pub const GET_SHMEM_CONFIG: u32 = 44;

    /// Whether a request has an answer of its own, rather than an acknowledgement where that is agreed on.
    pub fn is_question(request: u32) -> bool {
        matches!(
            request,
            GET_FEATURES
                | GET_PROTOCOL_FEATURES
                | GET_VRING_BASE
                | GET_QUEUE_NUM
                | GET_CONFIG
                | GET_INFLIGHT_FD
                | GET_MAX_MEM_SLOTS
                | GET_STATUS
                | GET_SHARED_OBJECT
                | GET_SHMEM_CONFIG
                | SET_LOG_BASE
                | SET_DEVICE_STATE_FD
                | CHECK_DEVICE_STATE
                | CREATE_CRYPTO_SESSION
                | POSTCOPY_ADVISE
        )
    }

    /// A request's name, for messages to the reader.
    pub fn name(request: u32) -> String {
        const NAMES: [&str; 45] = [
            "0",
            "GET_FEATURES",
            "SET_FEATURES",
            "SET_OWNER",
            "RESET_OWNER",
            "SET_MEM_TABLE",
            "SET_LOG_BASE",
            "SET_LOG_FD",
            "SET_VRING_NUM",
            "SET_VRING_ADDR",
            "SET_VRING_BASE",
            "GET_VRING_BASE",
            "SET_VRING_KICK",
            "SET_VRING_CALL",
            "SET_VRING_ERR",
            "GET_PROTOCOL_FEATURES",
            "SET_PROTOCOL_FEATURES",
            "GET_QUEUE_NUM",
            "SET_VRING_ENABLE",
            "SEND_RARP",
            "NET_SET_MTU",
            "SET_BACKEND_REQ_FD",
            "IOTLB_MSG",
            "SET_VRING_ENDIAN",
            "GET_CONFIG",
            "SET_CONFIG",
            "CREATE_CRYPTO_SESSION",
            "CLOSE_CRYPTO_SESSION",
            "POSTCOPY_ADVISE",
            "POSTCOPY_LISTEN",
            "POSTCOPY_END",
            "GET_INFLIGHT_FD",
            "SET_INFLIGHT_FD",
            "GPU_SET_SOCKET",
            "RESET_DEVICE",
            "VRING_KICK",
            "GET_MAX_MEM_SLOTS",
            "ADD_MEM_REG",
            "REM_MEM_REG",
            "SET_STATUS",
            "GET_STATUS",
            "GET_SHARED_OBJECT",
            "SET_DEVICE_STATE_FD",
            "CHECK_DEVICE_STATE",
            "GET_SHMEM_CONFIG",
        ];
        match NAMES.get(request as usize) {
            Some(name) => (*name).to_owned(),
            None => format!("request {request:#x}"),
        }
    }
}

/// Header field `flags`.
pub mod flag {
    /// Protocol version 1, the only one.
    pub const VERSION: u32 = 0x1;
    /// The message is a reply.
    pub const REPLY: u32 = 0x4;
    /// The sender wants an acknowledgement (with [`super::protocol::REPLY_ACK`]).
    pub const NEED_REPLY: u32 = 0x8;
}

/// Virtio feature bits that belong to rings and transport.
pub mod feature {
    /// The device logs the pages it writes.
    pub const LOG_ALL: u64 = 1 << 26;
    /// Indirect descriptor tables.
    pub const INDIRECT: u64 = 1 << 28;
    /// used_event and avail_event instead of flags.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// vhost-user: protocol features, and rings that start disabled.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// Virtio 1.x.
    pub const VERSION_1: u64 = 1 << 32;
    /// Packed rings.
    pub const PACKED: u64 = 1 << 34;
    /// The device uses buffers in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
}

/// Protocol feature bits.
pub mod protocol {
    /// More than one queue; GET_QUEUE_NUM.
    pub const MQ: u64 = 1 << 0;
    /// The dirty log is a shared memory descriptor.
    pub const LOG_SHMFD: u64 = 1 << 1;
    /// Acknowledgements on request.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// Requests of the device to the frontend.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// GET_CONFIG and SET_CONFIG.
    pub const CONFIG: u64 = 1 << 9;
    /// In-flight tracking.
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    /// RESET_DEVICE.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// Memory regions one by one.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// SET_STATUS and GET_STATUS.
    pub const STATUS: u64 = 1 << 16;
}

/// Length of a message header.
pub const HEADER: usize = 12;

/// The 12 header bytes.
pub fn header(request: u32, flags: u32, size: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0..4].copy_from_slice(&request.to_ne_bytes());
    bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&size.to_ne_bytes());
    bytes
}

/// Body of one 64-bit number.
pub fn number(value: u64) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// Body of the ring messages with an index and a number.
pub fn vring_state(index: u32, num: u32) -> Vec<u8> {
    words(&[index, num])
}

/// Body of the ring messages that carry a descriptor; `descriptor` tells whether one is attached.
pub fn vring_descriptor(index: u8, descriptor: bool) -> Vec<u8> {
    number(u64::from(index) | if descriptor { 0 } else { 0x100 })
}

/// Addresses of a ring: frontend virtual addresses, and a guest physical address for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VringAddress {
    /// Descriptor table.
    pub descriptors: u64,
    /// Used ring.
    pub used: u64,
    /// Available ring.
    pub available: u64,
    /// Guest address under which writes to the used ring are logged; `None`: not logged.
    pub log: Option<u64>,
}

/// Body of SET_VRING_ADDR.
pub fn vring_address(index: u32, address: VringAddress) -> Vec<u8> {
    let mut body = words(&[index, u32::from(address.log.is_some())]);
    for part in [
        address.descriptors,
        address.used,
        address.available,
        address.log.unwrap_or(0),
    ] {
        body.extend(part.to_ne_bytes());
    }
    body
}

/// Body of SET_MEM_TABLE.
pub fn memory_table(places: &[crate::memory::Place]) -> Vec<u8> {
    let mut body = words(&[places.len() as u32, 0]);
    for place in places {
        body.extend(region(*place));
    }
    body
}

/// Body of ADD_MEM_REG and REM_MEM_REG.
pub fn single_region(place: crate::memory::Place) -> Vec<u8> {
    let mut body = number(0);
    body.extend(region(place));
    body
}

fn region(place: crate::memory::Place) -> Vec<u8> {
    [place.guest, place.len, place.user, place.offset]
        .iter()
        .flat_map(|part| part.to_ne_bytes())
        .collect()
}

/// Body of GET_CONFIG and SET_CONFIG: the payload follows the three words, as much of it as the test likes.
pub fn config(offset: u32, size: u32, payload: &[u8]) -> Vec<u8> {
    let mut body = words(&[offset, size, 0]);
    body.extend_from_slice(payload);
    body
}

/// Body of SET_LOG_BASE.
pub fn log(len: u64, offset: u64) -> Vec<u8> {
    let mut body = number(len);
    body.extend(offset.to_ne_bytes());
    body
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Place;

    #[test]
    fn bodies_have_the_sizes_of_the_specification() {
        let place = Place::new(0x1000, 0x2000);
        let address = VringAddress {
            descriptors: 1,
            used: 2,
            available: 3,
            log: Some(4),
        };
        assert_eq!(vring_state(1, 2).len(), 8);
        assert_eq!(vring_address(0, address).len(), 40);
        assert_eq!(memory_table(&[place, place]).len(), 8 + 2 * 32);
        assert_eq!(single_region(place).len(), 40);
        assert_eq!(config(0, 4, &[1, 2, 3, 4]).len(), 16);
        assert_eq!(log(1, 2).len(), 16);
    }

    #[test]
    fn a_ring_without_descriptor_says_so_in_bit_8() {
        assert_eq!(vring_descriptor(3, true), 3u64.to_ne_bytes());
        assert_eq!(vring_descriptor(3, false), 0x103u64.to_ne_bytes());
    }

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        assert_eq!(request::name(request::RESET_DEVICE), "RESET_DEVICE");
        assert_eq!(request::name(request::GET_SHMEM_CONFIG), "GET_SHMEM_CONFIG");
        assert_eq!(request::name(request::SET_VRING_CALL), "SET_VRING_CALL");
        assert_eq!(request::name(45), "request 0x2d");
    }
}
