//! The machine that something was measured on, as the kernel describes it.

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel name and release.
    pub kernel: String,
    /// Model of the processor, as the kernel names it.
    pub processor: String,
    /// Processors that this program may use.
    pub cores: u32,
    /// Memory in bytes; 0 where it isn't known.
    #[serde(default)]
    pub memory: u64,
}

impl Machine {
    /// Describes this machine.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = field(&text("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine {
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            processor: field(&text("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            memory: memory_kib * 1024,
        }
    }
}

/// The value of the first line that begins so.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_lines() {
        let text = "processor\t: 0\nmodel name\t: Abacus 3: fast\nmodel name\t: Abacus 4\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Abacus 3: fast"));
        assert_eq!(field(text, "flags"), None);
    }
}
