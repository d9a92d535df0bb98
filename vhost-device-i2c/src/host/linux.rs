//! An adapter of the host, over i2c-dev.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use super::smbus::{self, Call};
use super::{Bus, Failure, OpenError, adapters, ioctl, unsupported};
use crate::address::Address;
use crate::config::Adapter;
use crate::message::Message;

/// I2C_FUNC_I2C: transfers of any shape.
const FUNC_I2C: u64 = 0x0000_0001;
/// I2C_FUNC_10BIT_ADDR
const FUNC_TEN_BIT: u64 = 0x0000_0002;

/// An open adapter.
#[derive(Debug)]
pub struct Linux {
    file: File,
    functions: u64,
    force: bool,
}

impl Linux {
    /// Opens an adapter and makes sure that all `addresses` can be used on it.
    ///
    /// # Errors
    /// If there is no such adapter, it may not be opened, it cannot do any transfers, or an address cannot be used.
    pub fn open(
        adapter: &Adapter,
        addresses: &[Address],
        force: bool,
        timeout: Duration,
    ) -> Result<Self, OpenError> {
        let path = format!("/dev/i2c-{}", adapters::number(adapter)?);
        let fail = |action| {
            let object = path.clone();
            move |error| OpenError::Io {
                action,
                object,
                error,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(&path)
            .map_err(fail("open"))?;
        let functions = ioctl::functions(&file).map_err(fail("ask for the functions of"))?;
        if functions & (FUNC_I2C | smbus::ANY) == 0 {
            return Err(fail("make transfers on")(unsupported()));
        }
        ioctl::set_timeout(&file, timeout).map_err(fail("set the timeout of"))?;
        let bus = Self {
            file,
            functions,
            force,
        };
        for address in addresses {
            bus.check(adapter, *address)?;
        }
        Ok(bus)
    }

    fn check(&self, adapter: &Adapter, address: Address) -> Result<(), OpenError> {
        if matches!(address, Address::Ten(_)) && self.functions & FUNC_TEN_BIT == 0 {
            return Err(OpenError::NoTenBit {
                adapter: adapter.clone(),
                address,
            });
        }
        match ioctl::select(&self.file, address, self.force) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(OpenError::Held {
                adapter: adapter.clone(),
                address,
            }),
            Err(error) => Err(OpenError::Io {
                action: "use an address of",
                object: adapter.to_string(),
                error,
            }),
        }
    }

    /// One transfer of any shape. It asks for each address first: a driver of the kernel may have taken it since the start,
    /// and I2C_RDWR does not mind.
    fn combined(&self, messages: &[Message], bytes: &mut [u8]) -> io::Result<usize> {
        if !self.force {
            for message in messages {
                ioctl::select(&self.file, message.address, false)?;
            }
        }
        ioctl::transfer(&self.file, messages, bytes)
    }

    fn call(&self, messages: &[Message], bytes: &mut [u8]) -> io::Result<()> {
        let mut call = Call::plan(messages, bytes, self.functions).ok_or_else(unsupported)?;
        ioctl::select(&self.file, call.address, self.force)?;
        ioctl::call(&self.file, &mut call)?;
        call.finish(bytes)
    }
}

impl Bus for Linux {
    fn transfer(&mut self, messages: &[Message], bytes: &mut [u8]) -> Result<(), Failure> {
        if self.functions & FUNC_I2C == 0 {
            return self.call(messages, bytes).map_err(Failure::whole);
        }
        match self.combined(messages, bytes) {
            Ok(done) if done >= messages.len() => Ok(()),
            // the adapter of a guest, for one, says how far it came
            Ok(done) => Err(Failure {
                done,
                error: super::not_acknowledged(),
            }),
            Err(error) => Err(Failure::whole(error)),
        }
    }
}
