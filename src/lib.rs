//! The chat service of Caffis.
