//! What a line can be and do.

/// A line, as the guest numbers them from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(pub u16);

impl Line {
    /// The line as a position in a slice.
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The direction of an active line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest senses it.
    In,
    /// The guest drives it.
    Out,
}

/// A change of a line's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Inactive to active.
    Rising,
    /// Active to inactive.
    Falling,
}

/// A set of edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// Inactive to active.
    pub rising: bool,
    /// Active to inactive.
    pub falling: bool,
}

impl Edges {
    /// No edge.
    pub const NONE: Self = Self {
        rising: false,
        falling: false,
    };

    /// Whether `edge` is in the set.
    pub fn contains(self, edge: Edge) -> bool {
        match edge {
            Edge::Rising => self.rising,
            Edge::Falling => self.falling,
        }
    }

    /// Adds `edge`.
    pub fn insert(&mut self, edge: Edge) {
        match edge {
            Edge::Rising => self.rising = true,
            Edge::Falling => self.falling = true,
        }
    }

    /// The edges of the set, rising first.
    pub fn iter(self) -> impl Iterator<Item = Edge> {
        [Edge::Rising, Edge::Falling]
            .into_iter()
            .filter(move |edge| self.contains(*edge))
    }
}

/// What makes a line interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Certain edges, remembered while the interrupt is masked.
    Edge(Edges),
    /// A level (true is active, or high), as long as it lasts.
    Level(bool),
}

impl Trigger {
    /// The edges that the host has to report for it. A level begins with an edge.
    pub fn edges(self) -> Edges {
        match self {
            Self::Edge(edges) => edges,
            Self::Level(active) => Edges {
                rising: active,
                falling: !active,
            },
        }
    }
}
