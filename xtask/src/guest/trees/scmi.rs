//! The firmware node through which Linux finds what an SCMI device offers, and consumers that user space can switch.
//!
//! The numbers in the nodes are those of the daemon's default arguments in [`super::super::devices`]. Performance domains and
//! resets have no consumer here: no driver of the guest's kernel lets user space move them.

use crate::guest::devicetree::{Node, Nodes};

/// The nodes of the scmi device. They name no socket, and do for every machine.
pub const NODES: Nodes = Nodes {
    device: None,
    others: || vec![firmware(), bus(), output(), supply()],
};

/// The virtio device type, in front of all phandles.
const BASE: u32 = 32 << 8;
const POWER: u32 = BASE + 0x11;
const PERFORMANCE: u32 = BASE + 0x13;
const CLOCKS: u32 = BASE + 0x14;
const RESETS: u32 = BASE + 0x16;
const CARD_VOLTAGE: u32 = BASE + 0x100;
const CORE_VOLTAGE: u32 = BASE + 0x101;

/// Numbers of clocks.
const OSCILLATOR: u32 = 0;
const UART: u32 = 1;
const PLL: u32 = 2;

fn firmware() -> Node {
    let scmi = Node::new("scmi")
        .compatible("arm,scmi-virtio")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[0])
        .child(provider(0x11, POWER, "#power-domain-cells"))
        .child(protocol(0x12))
        .child(provider(0x13, PERFORMANCE, "#power-domain-cells"))
        .child(provider(0x14, CLOCKS, "#clock-cells"))
        .child(protocol(0x15))
        .child(provider(0x16, RESETS, "#reset-cells"))
        .child(protocol(0x17).child(regulators()));
    Node::new("firmware").child(scmi)
}

fn protocol(number: u32) -> Node {
    Node::new(format!("protocol@{number:x}")).cells("reg", &[number])
}

/// A protocol whose domains others refer to, by one number.
fn provider(number: u32, phandle: u32, cells: &'static str) -> Node {
    protocol(number)
        .cells("phandle", &[phandle])
        .cells(cells, &[1])
}

fn regulators() -> Node {
    Node::new("regulators")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[0])
        .child(regulator(0, CARD_VOLTAGE, "vcc-sd", [1_800_000, 3_300_000]))
        .child(regulator(1, CORE_VOLTAGE, "vcore", [800_000, 1_200_000]))
}

/// A voltage with its limits, in microvolts.
fn regulator(number: u32, phandle: u32, name: &str, [least, most]: [u32; 2]) -> Node {
    Node::new(format!("regulator@{number}"))
        .cells("reg", &[number])
        .cells("phandle", &[phandle])
        .text("regulator-name", name)
        .cells("regulator-min-microvolt", &[least])
        .cells("regulator-max-microvolt", &[most])
}

/// A bus that needs a power domain and two clocks while it is used; its file `power/control` says whether it is. One of the
/// clocks gets a parent, and both get rates, when the bus gets its driver.
fn bus() -> Node {
    Node::new("scmi-bus")
        .compatible("simple-pm-bus")
        .flag("ranges")
        .cells("power-domains", &[POWER, 0])
        .cells("clocks", &[CLOCKS, UART, CLOCKS, PLL])
        .texts("clock-names", &["uart", "pll"])
        .cells("assigned-clocks", &[CLOCKS, UART, CLOCKS, PLL])
        .cells("assigned-clock-parents", &[CLOCKS, OSCILLATOR])
        .cells("assigned-clock-rates", &[24_000_000, 250_000_000])
}

/// Switches a voltage by its file `state`.
fn output() -> Node {
    Node::new("scmi-output")
        .compatible("regulator-output")
        .cells("vout-supply", &[CARD_VOLTAGE])
}

/// Sets a voltage by its files `min_microvolts` and `max_microvolts`.
fn supply() -> Node {
    Node::new("scmi-supply")
        .compatible("regulator-virtual-consumer")
        .cells("default-supply", &[CORE_VOLTAGE])
}
