//! The relay seam: how a node tells the others what it did, so that they need not wait for their
//! next look into the store. A backend is a thread of its own.

pub mod redis;
