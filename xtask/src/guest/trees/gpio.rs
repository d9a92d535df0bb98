//! Keys that press themselves while a line of the chip has a level: `gpio-keys` is the kernel's consumer of level interrupts
//! that sleeps nowhere. The chip's driver talks to the device whenever an interrupt is switched on or off, and `uio_pdrv_genirq`
//! would do that within the interrupt.
//!
//! No driver knows the keys by their names, so they are idle until the guest binds them by hand.

use crate::guest::devicetree::{Node, Nodes};

/// The nodes of the gpio device.
pub const NODES: Nodes = Nodes {
    device: Some(chip),
    others: consumers,
};

/// How others refer to the chip: its virtio device type, and a number.
const CHIP: u32 = 41 << 8;

/// Triggers in an interrupt's second cell.
const HIGH: u32 = 4;
const LOW: u32 = 8;

/// KEY_A and KEY_B of the kernel's input event codes.
const KEYS: [u32; 2] = [30, 48];

/// How long after its last interrupt a key is released.
const RELEASE_MS: u32 = 100;

/// The kernel's binding has the chip in a child, called after the virtio device type.
fn chip(device: Node) -> Node {
    device.child(
        Node::new("gpio")
            .compatible("virtio,device29")
            .cells("phandle", &[CHIP])
            .flag("gpio-controller")
            .cells("#gpio-cells", &[2])
            .flag("interrupt-controller")
            .cells("#interrupt-cells", &[2]),
    )
}

fn consumers() -> Vec<Node> {
    let [a, b] = KEYS;
    vec![key("key-high", 4, HIGH, a), key("key-low", 5, LOW, b)]
}

fn key(name: &str, line: u32, trigger: u32, code: u32) -> Node {
    Node::new(name).compatible("vhost-device,key").child(
        Node::new("key")
            .cells("interrupts-extended", &[CHIP, line, trigger])
            .cells("linux,code", &[code])
            .cells("debounce-interval", &[RELEASE_MS])
            .flag("linux,can-disable"),
    )
}
