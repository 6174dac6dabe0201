//! stopcock beside its peers.

fn main() {}
