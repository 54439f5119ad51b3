//! Why a link could not be opened.

use core::fmt;
use std::io::ErrorKind;

use crate::sys::Errno;

/// Why a link could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel does not let this process open such a socket. The message says how to permit it.
    NotPermitted(Errno),
    /// Another socket has the address and port.
    AddressInUse(Errno),
    /// The machine does not have the address, or not the family.
    NoSuchAddress(Errno),
    /// The kernel refused a step for another reason.
    Os {
        /// The system call, or the option of it.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
}

impl OpenError {
    /// The error of `call`, sorted.
    pub(crate) fn of(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::PERM | Errno::ACCES => Self::NotPermitted(errno),
            Errno::ADDRINUSE => Self::AddressInUse(errno),
            Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT => Self::NoSuchAddress(errno),
            _ => Self::Os { call, errno },
        }
    }

    /// What the kernel answered.
    pub const fn errno(&self) -> Errno {
        match *self {
            Self::NotPermitted(errno) | Self::AddressInUse(errno) | Self::NoSuchAddress(errno) => errno,
            Self::Os { errno, .. } => errno,
        }
    }

    /// The kind that the standard library gives the errno.
    pub fn kind(&self) -> ErrorKind {
        std::io::Error::from(self.errno()).kind()
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted(errno) => write!(
                f,
                "not permitted ({errno}): run as root, or `setcap cap_net_raw+ep` the program for raw and packet \
                 sockets and `cap_net_bind_service+ep` for ports below 1024"
            ),
            Self::AddressInUse(errno) => {
                write!(f, "another socket has this address and port ({errno}): choose another port")
            }
            Self::NoSuchAddress(errno) => write!(f, "this machine does not have the address ({errno})"),
            Self::Os { call, errno } => write!(f, "{call}: {errno}"),
        }
    }
}

impl core::error::Error for OpenError {}
