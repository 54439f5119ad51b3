//! Links: datagrams behind the [`Link`](hal::link::Link) port.
//!
//! | link | needs | notes |
//! | --- | --- | --- |
//! | [`UdpLink`] | nothing | least CPU a packet, when they go in trains; passes NAT |

mod error;
mod inbox;
mod outbox;
mod udp;

pub use error::OpenError;
pub use udp::{UdpConfig, UdpLink};
