//! The laws of termination, held against every public item.
