//! Devicetrees for guests, in the flattened form (Devicetree Specification 0.4, section 5).

use std::path::Path;

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE_VERSION: u32 = 16;
const HEADER_BYTES: u32 = 40;
/// The end of a list of reserved memory without entries.
const NO_RESERVATIONS: [u32; 4] = [0; 4];

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// What a device adds to the tree of its guest.
#[derive(Debug)]
pub struct Nodes {
    /// Completes the device's own node, which [`virtio_uml`] or [`pci`] began, with children. Without it the device has no node.
    pub device: Option<fn(Node) -> Node>,
    /// Nodes at the root, such as consumers of what the device has.
    pub others: fn() -> Vec<Node>,
}

/// A node: a name, properties, children.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    properties: Vec<(&'static str, Vec<u8>)>,
    children: Vec<Self>,
}

impl Node {
    /// A node without anything in it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            properties: Vec::new(),
            children: Vec::new(),
        }
    }

    /// The same with the property `compatible`.
    pub fn compatible(self, with: &str) -> Self {
        self.text("compatible", with)
    }

    /// The same with a property that is there or not.
    pub fn flag(self, name: &'static str) -> Self {
        self.property(name, Vec::new())
    }

    /// The same with a property that is a list of cells.
    pub fn cells(self, name: &'static str, cells: &[u32]) -> Self {
        self.property(name, bytes(cells))
    }

    /// The same with a property that is a text.
    pub fn text(self, name: &'static str, text: &str) -> Self {
        self.texts(name, &[text])
    }

    /// The same with a property that is a list of texts.
    pub fn texts(self, name: &'static str, texts: &[&str]) -> Self {
        let terminated = texts.iter().flat_map(|text| [text.as_bytes(), b"\0"]);
        self.property(name, terminated.collect::<Vec<_>>().concat())
    }

    /// The same with a child.
    pub fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// The same with children.
    pub fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    fn property(mut self, name: &'static str, value: Vec<u8>) -> Self {
        self.properties.push((name, value));
        self
    }
}

/// The root of a guest's tree. Its mere presence tells the kernel that no power supply is left to be described, without
/// which drivers that ask for one (of sensors, of memories) wait for it for ever.
pub fn root() -> Node {
    Node::new("")
        .compatible("vhost-device,guest")
        // the kernel wants both said, though nothing here has an address
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
}

/// The node of a device whose daemon is at `socket`, for User Mode Linux.
pub fn virtio_uml(name: &str, socket: &Path, virtio_id: u32) -> Node {
    Node::new(format!("virtio-{name}"))
        .compatible("virtio,uml")
        .text("socket-path", &socket.to_string_lossy())
        .cells("virtio-device-id", &[virtio_id])
}

/// The node of an emulated machine's PCI bus. Linux on x86 finds it by its type and first number, and takes all but nodes of its
/// devices from elsewhere.
pub fn pci_bus() -> Node {
    Node::new("pci")
        .text("device_type", "pci")
        .cells("bus-range", &[0, 0])
        .cells("#address-cells", &[3])
        .cells("#size-cells", &[2])
}

/// The node of a device in this slot of the PCI bus.
pub fn pci(name: &str, slot: u32) -> Node {
    const SLOT_SHIFT: u32 = 11;
    Node::new(format!("virtio-{name}@{slot:x}")).cells("reg", &[slot << SLOT_SHIFT, 0, 0, 0, 0])
}

/// The tree below `root` as the kernel takes it.
pub fn flatten(root: &Node) -> Vec<u8> {
    let mut blocks = Blocks::default();
    blocks.node(root);
    blocks.word(END);
    let Blocks { structure, strings } = blocks;

    let reservations = HEADER_BYTES;
    let structure_at = reservations + 16;
    let strings_at = structure_at + structure.len() as u32;
    let total = strings_at + strings.len() as u32;
    let header = [
        MAGIC,
        total,
        structure_at,
        strings_at,
        reservations,
        VERSION,
        LAST_COMPATIBLE_VERSION,
        0,
        strings.len() as u32,
        structure.len() as u32,
    ];
    [bytes(&header), bytes(&NO_RESERVATIONS), structure, strings].concat()
}

/// The two blocks of a flattened tree: its structure, and the names of its properties.
#[derive(Default)]
struct Blocks {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Blocks {
    fn node(&mut self, node: &Node) {
        self.word(BEGIN_NODE);
        self.padded(&[node.name.as_bytes(), b"\0"].concat());
        for (name, value) in &node.properties {
            let name = self.string(name);
            self.word(PROPERTY);
            self.word(value.len() as u32);
            self.word(name);
            self.padded(value);
        }
        for child in &node.children {
            self.node(child);
        }
        self.word(END_NODE);
    }

    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.structure.extend(bytes);
        let end = self.structure.len().next_multiple_of(4);
        self.structure.resize(end, 0);
    }

    /// Where a name is among the strings.
    fn string(&mut self, name: &str) -> u32 {
        let name = [name.as_bytes(), b"\0"].concat();
        let known = self.strings.windows(name.len()).position(|at| at == name);
        let at = known.unwrap_or_else(|| {
            self.strings.extend(&name);
            self.strings.len() - name.len()
        });
        at as u32
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as text, read back word by word.
    fn read(tree: &[u8]) -> String {
        let word = |at: usize| u32::from_be_bytes(tree[at..at + 4].try_into().unwrap()) as usize;
        let text = |at: usize| {
            let end = tree[at..].iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(tree[at..at + end].to_vec()).unwrap()
        };
        assert_eq!(word(0), MAGIC as usize);
        assert_eq!(word(4), tree.len());
        assert_eq!(&tree[word(16)..word(16) + 16], &[0; 16]);
        let (mut at, strings) = (word(8), word(12));
        assert_eq!((word(32), word(36)), (tree.len() - strings, strings - at));
        let mut seen = String::new();
        loop {
            let token = word(at) as u32;
            at += 4;
            match token {
                BEGIN_NODE => {
                    let name = text(at);
                    seen += &format!("{name}{{");
                    at += (name.len() + 1).next_multiple_of(4);
                }
                PROPERTY => {
                    let (length, name) = (word(at), text(strings + word(at + 4)));
                    seen += &format!("{name}={:?};", &tree[at + 8..at + 8 + length]);
                    at += 8 + length.next_multiple_of(4);
                }
                END_NODE => seen += "}",
                END => break,
                other => panic!("token {other} at {at}"),
            }
        }
        assert_eq!(at, strings);
        seen
    }

    #[test]
    fn a_tree_has_what_was_put_into_it() {
        let button = Node::new("b").cells("code", &[258]).flag("code-two");
        let tree = Node::new("")
            .texts("names", &["a", "bc"])
            .child(Node::new("keys").cells("code", &[1]).child(button));
        assert_eq!(
            read(&flatten(&tree)),
            "{names=[97, 0, 98, 99, 0];keys{code=[0, 0, 0, 1];b{code=[0, 0, 1, 2];code-two=[];}}}"
        );
    }

    #[test]
    fn a_name_is_kept_once_and_not_found_within_another() {
        let tree = Node::new("").flag("of-id").flag("id").flag("i");
        let tree = flatten(&tree.child(Node::new("x").flag("i")));
        assert_eq!(read(&tree), "{of-id=[];id=[];i=[];x{i=[];}}");
        assert!(tree.ends_with(b"of-id\0i\0"), "ends are shared");
    }
}
