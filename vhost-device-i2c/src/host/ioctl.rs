//! The ioctls of i2c-dev (linux/i2c-dev.h, linux/i2c.h).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::smbus::{BLOCK_BYTES, Call};
use crate::address::Address;
use crate::group::MAX_MESSAGES;
use crate::message::{Direction, Message};

const TIMEOUT: libc::c_ulong = 0x0702;
const SLAVE: libc::c_ulong = 0x0703;
const TENBIT: libc::c_ulong = 0x0704;
const FUNCS: libc::c_ulong = 0x0705;
const SLAVE_FORCE: libc::c_ulong = 0x0706;
const RDWR: libc::c_ulong = 0x0707;
const SMBUS: libc::c_ulong = 0x0720;

/// Those that transfers take; the others are for the start.
#[cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "the daemon's sandbox")
)]
pub const OF_TRANSFERS: &[u64] = &[
    SLAVE as _,
    TENBIT as _,
    SLAVE_FORCE as _,
    RDWR as _,
    SMBUS as _,
];

const M_RD: u16 = 0x0001;
const M_TEN: u16 = 0x0010;

/// `struct i2c_msg`
#[derive(Clone, Copy)]
#[repr(C)]
struct RawMessage {
    address: u16,
    flags: u16,
    length: u16,
    buffer: *mut u8,
}

/// `struct i2c_rdwr_ioctl_data`
#[repr(C)]
struct RawTransfer {
    messages: *mut RawMessage,
    count: u32,
}

/// `struct i2c_smbus_ioctl_data`
#[repr(C)]
struct RawCall {
    read: u8,
    command: u8,
    kind: u32,
    data: *mut [u8; BLOCK_BYTES],
}

fn plain(file: &File, request: libc::c_ulong, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the request takes a number, not a pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, value) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the adapter can do, as I2C_FUNC bits.
pub fn functions(file: &File) -> io::Result<u64> {
    let mut functions: libc::c_ulong = 0;
    // SAFETY: the descriptor is open, and the request writes one unsigned long.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FUNCS as _, &raw mut functions) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(functions)
}

/// Sets the adapter's timeout, in steps of 10 ms, at least one.
pub fn set_timeout(file: &File, timeout: Duration) -> io::Result<()> {
    let steps = (timeout.as_millis() / 10).max(1);
    plain(
        file,
        TIMEOUT,
        libc::c_ulong::try_from(steps).unwrap_or(libc::c_ulong::MAX),
    )
}

/// Chooses the target of SMBus calls. Without `force` this fails with EBUSY if a driver of the kernel holds the address.
pub fn select(file: &File, address: Address, force: bool) -> io::Result<()> {
    let (ten, number) = match address {
        Address::Seven(number) => (false, u16::from(number)),
        Address::Ten(number) => (true, number),
    };
    plain(file, TENBIT, ten.into())?;
    plain(file, if force { SLAVE_FORCE } else { SLAVE }, number.into())
}

/// Carries out one transfer; returns how many messages were carried out.
pub fn transfer(file: &File, messages: &[Message], bytes: &mut [u8]) -> io::Result<usize> {
    let mut raw = [RawMessage {
        address: 0,
        flags: 0,
        length: 0,
        buffer: std::ptr::null_mut(),
    }; MAX_MESSAGES];
    if messages.len() > raw.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (raw, message) in raw.iter_mut().zip(messages) {
        let room = bytes
            .get_mut(message.range.clone())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let (ten, address) = match message.address {
            Address::Seven(address) => (0, u16::from(address)),
            Address::Ten(address) => (M_TEN, address),
        };
        let read = match message.direction {
            Direction::Read => M_RD,
            Direction::Write => 0,
        };
        *raw = RawMessage {
            address,
            flags: read | ten,
            length: u16::try_from(room.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            buffer: room.as_mut_ptr(),
        };
    }
    let mut transfer = RawTransfer {
        messages: raw.as_mut_ptr(),
        count: messages.len() as u32,
    };
    // SAFETY: the descriptor is open; `count` elements of `raw` are set, and each points to `length` bytes of `bytes`, which
    // is borrowed mutably for the whole call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), RDWR as _, &raw mut transfer) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Makes one SMBus call to the selected target. Its data are exchanged in place.
pub fn call(file: &File, call: &mut Call) -> io::Result<()> {
    let mut raw = RawCall {
        read: (call.direction == Direction::Read).into(),
        command: call.command,
        kind: call.kind as u32,
        data: &raw mut call.data,
    };
    // SAFETY: the descriptor is open, and the data have the size of union i2c_smbus_data, which the kernel never exceeds.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SMBUS as _, &raw mut raw) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
