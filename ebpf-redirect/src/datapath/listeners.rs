// SPDX-License-Identifier: Apache-2.0
//! The proxy's listeners, to which the kernel hands connections: those of one process at a time.

use weft_ebpf_common::layout::MAX_LISTENERS;

use super::{Datapath, DatapathError};

impl Datapath {
    /// Tells the kernel the ports of the proxy's listeners, one per worker, the same on 127.0.0.1 and
    /// ::1. The sockets must be transparent, carry the mark `from_proxy`, and not share their port.
    /// Without listeners, what should be redirected is dropped.
    ///
    /// # Errors
    /// Where there are too many, or the maps cannot be written.
    pub fn set_listeners(&mut self, ports: &[u16]) -> Result<(), DatapathError> {
        let count = u32::try_from(ports.len()).ok().filter(|count| *count <= MAX_LISTENERS);
        let Some(count) = count else { return Err(DatapathError::Listeners(ports.len())) };
        for (index, port) in (0_u32..).zip(ports) {
            self.maps.listeners.update(&index, &u32::from(*port))?;
        }
        let mut config = self.maps.config.lookup(&0)?.unwrap_or_default();
        config.listeners = count;
        self.maps.config.update(&0, &config)?;
        self.listeners = ports.to_vec();
        Ok(())
    }

    /// Whether the listeners that the kernel has are those that this process has set.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn has_listeners(&self) -> Result<bool, DatapathError> {
        let config = self.maps.config.lookup(&0)?.unwrap_or_default();
        if config.listeners as usize != self.listeners.len() {
            return Ok(false);
        }
        for (index, port) in (0_u32..).zip(&self.listeners) {
            if self.maps.listeners.lookup(&index)? != Some(u32::from(*port)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the listeners of this process back, so that what should be redirected is dropped; those of another
    /// process, which has taken over, stay.
    ///
    /// # Errors
    /// Where the maps cannot be read or written.
    pub fn clear_listeners(&mut self) -> Result<(), DatapathError> {
        if self.has_listeners()? { self.set_listeners(&[]) } else { Ok(()) }
    }

    /// Sets the listeners of this process again where somebody has set others.
    ///
    /// # Errors
    /// Where the maps cannot be read or written.
    pub fn restore_listeners(&mut self) -> Result<(), DatapathError> {
        if self.has_listeners()? {
            return Ok(());
        }
        tracing::warn!("the kernel led connections to another process or to none, back to this one");
        let ports = self.listeners.clone();
        self.set_listeners(&ports)
    }
}
