//! A disk whose power can be cut: an image file with a file system of its own, on XFS, where
//! `cp --reflink` copies it in one instant.
//!
//! The server writes to the inner file system. What it synced is in the image; what it did not is in
//! the page cache of the inner file system, and no copy of the image has it. So a copy in mid-write is
//! what the disk held at that instant, and mounting the copy is the machine's next boot. The image is
//! attached with direct I/O, past the page cache of the outer file system, so that the copy need not
//! write anything back first and the instant is sharp.
//!
//! Invariants: every mount and loop device is promised to the janitor before it can be left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::janitor::{Duty, Janitor};
use crate::world::SetupError;

/// Size of the outer image, sparse: holds two inner images that share most of their blocks.
const OUTER_MIB: u64 = 4096;
const INNER_MIB: u64 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

pub struct Disk {
    outer: PathBuf,
    /// Where the inner file system is mounted.
    pub mount: PathBuf,
    generation: u32,
    attached: Option<Attached>,
}

struct Attached {
    device: String,
    duties: [Duty; 2],
}

impl Disk {
    /// Makes both file systems and mounts them.
    ///
    /// # Errors
    /// When this is not root, or a tool is missing, with what to install.
    pub fn new(folder: &Path, kind: FileSystem, janitor: &mut Janitor) -> Result<Self, SetupError> {
        if output("id", &["-u"])? != "0" {
            return Err(SetupError(
                "power cuts need root: they mount file systems".to_owned(),
            ));
        }
        for (tool, package) in [
            ("mkfs.xfs", "xfsprogs"),
            ("mkfs.ext4", "e2fsprogs"),
            ("losetup", "mount"),
        ] {
            output(tool, &["-V"])
                .map_err(|_| SetupError(format!("{tool} is missing: apt-get install {package}")))?;
        }
        let (outer_image, outer, mount) = (
            folder.join("outer.img"),
            folder.join("outer"),
            folder.join("disk"),
        );
        std::fs::create_dir(&outer)?;
        std::fs::create_dir(&mount)?;
        std::fs::File::create(&outer_image)?.set_len(OUTER_MIB << 20)?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", text(&outer_image)?])?;
        janitor.promise(&format!("umount '{}'", outer.display()))?;
        run("mount", &["-o", "loop", text(&outer_image)?, text(&outer)?])?;
        let disk = Self {
            outer,
            mount,
            generation: 0,
            attached: None,
        };
        let image = disk.image(0);
        std::fs::File::create(&image)?.set_len(INNER_MIB << 20)?;
        match kind {
            FileSystem::Ext4 => run("mkfs.ext4", &["-q", "-F", text(&image)?])?,
            FileSystem::Xfs => run("mkfs.xfs", &["-q", "-s", "size=4096", text(&image)?])?,
        }
        Ok(disk)
    }

    fn image(&self, generation: u32) -> PathBuf {
        self.outer.join(format!("disk{generation}.img"))
    }

    /// # Errors
    /// When the system has no loop device or cannot mount: after a cut, that is the file system's
    /// own recovery failing.
    pub fn attach(&mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        let image = self.image(self.generation);
        let device = output(
            "losetup",
            &[
                "--find",
                "--show",
                "--direct-io=on",
                // Else it is taken from the device under the outer file system, whatever that is,
                // and the inner one may not be mountable.
                "--sector-size=4096",
                text(&image)?,
            ],
        )?;
        let loop_duty = janitor.promise(&format!("losetup -d {device}"))?;
        let mount_duty = janitor.promise(&format!("umount '{}'", self.mount.display()))?;
        self.attached = Some(Attached {
            device: device.clone(),
            duties: [loop_duty, mount_duty],
        });
        run("mount", &[&device, text(&self.mount)?])
    }

    /// Begins the copy: the instant of the cut lies between now and its end.
    ///
    /// # Errors
    /// When `cp` cannot be started.
    pub fn begin_cut(&self) -> Result<Child, SetupError> {
        Command::new("cp")
            .arg("--reflink=always")
            .arg(self.image(self.generation))
            .arg(self.image(self.generation + 1))
            .stdin(Stdio::null())
            .spawn()
            .map_err(SetupError::from)
    }

    /// Throws the old disk away and mounts the copy. Nobody may use the old one any more.
    ///
    /// # Errors
    /// As [`Disk::attach`].
    pub fn finish_cut(&mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        self.detach(janitor)?;
        std::fs::remove_file(self.image(self.generation))?;
        self.generation += 1;
        self.attach(janitor)
    }

    fn detach(&mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        let Some(attached) = self.attached.take() else {
            return Ok(());
        };
        run("umount", &[text(&self.mount)?])?;
        run("losetup", &["-d", &attached.device])?;
        for duty in attached.duties {
            janitor.take_back(duty)?;
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<&str, SetupError> {
    path.to_str()
        .ok_or_else(|| SetupError(format!("{}: not UTF-8", path.display())))
}

fn run(program: &str, args: &[&str]) -> Result<(), SetupError> {
    output(program, args).map(|_| ())
}

/// Runs a tool to its end. Returns its standard output, trimmed.
fn output(program: &str, args: &[&str]) -> Result<String, SetupError> {
    let shown = || format!("{program} {}", args.join(" "));
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(args)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| SetupError(format!("{}: {error}", shown())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SetupError(format!(
        "{}: {}: {words}",
        shown(),
        output.status
    )))
}
