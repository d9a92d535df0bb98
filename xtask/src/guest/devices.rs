//! The devices a guest can have. To add one: a row here, a smoke script, a tour (see [`super::tours`]).

use super::Machine;
use super::devicetree::Nodes;
use super::initramfs::Tool;
use super::programs;
use super::qemu::Version;
use super::tours::{self, Tour};
use super::trees;

/// What the rig knows about one of our daemons.
#[derive(Debug)]
pub struct Device {
    /// The binary is `vhost-device-NAME`.
    pub name: &'static str,
    /// The device type (VIRTIO 1.3, section 5), which User Mode Linux is told.
    pub virtio_id: u32,
    /// QEMU's device, with its properties but for the character device.
    pub qemu: &'static str,
    /// Which QEMU has that, and passes all of it on.
    pub since: Since,
    /// What it adds to the devicetree.
    pub nodes: Option<Nodes>,
    /// The daemon's arguments unless others are given, separated by white space; `{folder}` in them is the run's folder.
    pub arguments: &'static str,
    /// Programs for the guest.
    pub tools: &'static [Tool],
    /// What the host has for the guest while that runs.
    pub programs: Option<programs::Start>,
    /// Runs in the guest and ends with 0 if the device works there with its default arguments.
    pub smoke: &'static str,
    /// What `demo` shows of it.
    pub tour: Tour,
}

/// The QEMUs that do for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The one of the host's release.
    Own,
    /// Any, but only the newest has all of it.
    OwnInPart,
    /// The newest only.
    Newest,
}

/// All devices, in the order of the demo.
pub const DEVICES: &[Device] = &[
    Device {
        name: "rng",
        virtio_id: 4,
        qemu: "vhost-user-rng-pci",
        since: Since::Own,
        nodes: None,
        arguments: "",
        tools: &[],
        programs: None,
        smoke: include_str!("../../guest/smoke/rng.sh"),
        tour: tours::rng::TOUR,
    },
    Device {
        name: "gpio",
        virtio_id: 41,
        qemu: "vhost-user-gpio-pci",
        since: Since::OwnInPart,
        nodes: Some(trees::gpio::NODES),
        arguments: "-l s8,names=led//button,wire=0-2,wire=0-4,wire=0-5",
        // version 1 has no gpionotify: where it is missing, the others are too old
        tools: &[
            gpiod("gpionotify"),
            gpiod("gpiodetect"),
            gpiod("gpioinfo"),
            gpiod("gpioget"),
            gpiod("gpioset"),
            gpiod("gpiomon"),
        ],
        programs: None,
        smoke: include_str!("../../guest/smoke/gpio.sh"),
        tour: tours::gpio::TOUR,
    },
    Device {
        name: "i2c",
        virtio_id: 34,
        qemu: "vhost-user-i2c-pci",
        since: Since::Own,
        nodes: None,
        arguments: "--device-list sim0:0x20=regs:0x48=lm75@21.5:0x50=24c02",
        tools: &[
            tool("i2c-tools", "i2cdetect"),
            tool("i2c-tools", "i2cget"),
            tool("i2c-tools", "i2cset"),
            tool("i2c-tools", "i2ctransfer"),
        ],
        programs: None,
        smoke: include_str!("../../guest/smoke/i2c.sh"),
        tour: tours::i2c::TOUR,
    },
    Device {
        name: "vsock",
        virtio_id: 19,
        qemu: "vhost-user-vsock-pci",
        since: Since::Own,
        nodes: None,
        arguments: programs::vsock::ARGUMENTS,
        tools: &[tool("socat", "socat")],
        programs: Some(programs::vsock::start),
        smoke: include_str!("../../guest/smoke/vsock.sh"),
        tour: tours::vsock::TOUR,
    },
    Device {
        name: "scmi",
        virtio_id: 32,
        qemu: "vhost-user-test-device-pci,virtio-id=32,num_vqs=2,vq_size=256,config_size=0",
        since: Since::Newest,
        nodes: Some(trees::scmi::NODES),
        // numbers of domains are their places here; the devicetree and the script know them
        arguments: "-d sim,name=cpu,type=temperature,value=45.678 -d sim,name=vdd,type=voltage,value=1.05 \
                    -d sim,name=load,type=current,value=0.25 -d sim,name=drain,type=power,value=2.5 \
                    -d sim,name=a-sensor-with-a-long-name,type=temperature,value=-7.5 \
                    -d sim,name=accel,type=acceleration,value=0.5+-0.25+9.81,intervals=100+20+10 \
                    -d sim,name=heat,type=temperature,value=ramp:20:40:0.4,scale=-3,intervals=50+10 \
                    -d sim,name=late,type=temperature,value=33,delay=30 \
                    -d clock,name=osc,rates=24000000,state=on \
                    -d clock,name=uart,rates=1843200+24000000+48000000,parents=osc \
                    -d clock,name=pll,rates=100000000:400000000:25000000,state=on \
                    -d clock,name=slow,rates=1000+2000,delay=20,allow=rate \
                    -d power,name=gpu -d power,name=isp,state=on,delay=20 \
                    -d perf,name=cluster0,levels=500000:100:10+1000000:250:10+1500000:500:20,sustained=1000000 \
                    -d reset,name=usb -d reset,name=a-reset-with-a-long-name \
                    -d voltage,name=vcc-sd,levels=1800000+3300000,state=on \
                    -d voltage,name=vcore,levels=800000:1200000:25000 \
                    --system-power accept",
        tools: &[],
        programs: None,
        smoke: include_str!("../../guest/smoke/scmi.sh"),
        tour: tours::scmi::TOUR,
    },
];

const fn tool(package: &'static str, program: &'static str) -> Tool {
    Tool {
        program,
        package,
        backported: false,
    }
}

/// A tool of libgpiod 2; the release's own version has another command line.
const fn gpiod(program: &'static str) -> Tool {
    Tool {
        backported: true,
        ..tool("gpiod", program)
    }
}

impl Device {
    /// The device called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        DEVICES.iter().find(|device| device.name == name)
    }

    /// Whether `machine` can have it.
    pub fn fits(&self, machine: Machine) -> bool {
        machine != Machine::Qemu(Version::Own) || self.since != Since::Newest
    }

    /// Whether the tests try it alone in `machine`: in the newest QEMU what the host's own cannot show.
    pub fn is_tried_in(&self, machine: Machine) -> bool {
        match machine {
            Machine::Qemu(Version::Newest) => self.since != Since::Own,
            _ => self.fits(machine),
        }
    }

    /// The crate and the binary.
    pub fn binary(&self) -> String {
        format!("vhost-device-{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_tried_in_all_that_have_it() {
        let machines = |since| {
            let device = DEVICES.iter().find(|device| device.since == since);
            let tried =
                |machine: &Machine| device.is_some_and(|device| device.is_tried_in(*machine));
            let all = [
                Machine::Uml,
                Machine::Qemu(Version::Own),
                Machine::Qemu(Version::Newest),
            ];
            all.iter().map(tried).collect::<Vec<_>>()
        };
        assert_eq!(machines(Since::Own), [true, true, false]);
        assert_eq!(machines(Since::OwnInPart), [true, true, true]);
        assert_eq!(machines(Since::Newest), [true, false, true]);
    }
}
