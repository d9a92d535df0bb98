//! Everything a device must survive, against the I2C adapter.

use std::ops::Range;
use std::path::{Path, PathBuf};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Answer;
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::{StuckHost, Subject};
use vhost_device_testkit::{conformance, ensure};

mod common;

use common::{ERROR, OK, read};

/// 21.5 degrees as the sensor sends them, again and again.
const TEMPERATURE: [u8; 2] = [0x15, 0x80];
const SENSOR: u8 = 0x48;

struct I2c;

impl Subject for I2c {
    fn name(&self) -> &'static str {
        "i2c"
    }

    fn binary(&self) -> PathBuf {
        env!("CARGO_BIN_EXE_vhost-device-i2c").into()
    }

    fn arguments(&self, _: &Path) -> Vec<String> {
        vec!["-l".into(), "sim0:0x48=lm75@21.5".into()]
    }

    fn probe(&self) -> Request {
        read(SENSOR, 64)
    }

    fn long_probe(&self) -> Option<Request> {
        Some(read(SENSOR, 1024 - 8 - 1))
    }

    /// The sensor answers, whatever the padding is; nobody does at other addresses.
    fn judge(&self, request: &Request, answer: &Answer) -> Result<()> {
        ensure!(
            answer.used_len == request.writable,
            "{} of {} bytes were used",
            answer.used_len,
            request.writable
        );
        let Some((status, data)) = answer.bytes.split_last() else {
            return Ok(());
        };
        if request.readable[..2] != [SENSOR << 1, 0] {
            ensure!(*status == ERROR, "status {status} from nobody");
            return Ok(());
        }
        ensure!(*status == OK, "status {status} from the sensor");
        ensure!(
            data.iter()
                .zip(TEMPERATURE.iter().cycle())
                .all(|(a, b)| a == b),
            "not the sensor's temperature: {data:02x?}"
        );
        Ok(())
    }

    fn is_failure(&self, _: &Request, answer: &Answer) -> bool {
        answer.bytes.last() == Some(&ERROR)
    }

    /// The address and the padding. The flags decide about the next request too; they have tests of their own.
    fn header_fields(&self) -> Vec<Range<usize>> {
        vec![0..2, 2..4]
    }

    /// A sensor that holds the clock for a minute.
    fn stuck_host(&self, _: &Path) -> Result<Option<StuckHost>> {
        let arguments = ["-l", "sim0:0x48=stuck", "--bus-timeout", "60000"];
        Ok(Some(StuckHost {
            arguments: arguments.map(String::from).to_vec(),
            held: Vec::new(),
        }))
    }

    fn has_index_alias(&self) -> bool {
        true
    }
}

conformance!(I2c);
