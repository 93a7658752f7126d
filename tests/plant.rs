//! `examples/plant` as its page tells it: typed by hand at a real mosquitto, and as services of a real systemd.

use std::fs;
use std::process::Command;

use crate::deploy;
use crate::readme::{typed_in, typed_on};
use crate::support::broker::Broker;
use crate::support::hb::{Hb, repository};
use crate::support::machine::{GIVEN, Machine};

const PAGE: &str = "examples/plant/README.md";

/// Where the page says that a broker listens.
const PORT: &str = "127.0.0.1:1883";

#[test]
fn the_plant_is_typed_by_hand_and_its_fault_is_found() {
    let config = fs::read_to_string(repository().join("examples/plant/mosquitto.conf")).unwrap();
    let broker = Broker::start(&config);
    let hb = Background(Hb::new());
    // The page with the broker of the test, which is another one than the config names, too.
    let here = format!("127.0.0.1:{}", broker.port);
    let page = fs::read_to_string(repository().join(PAGE)).unwrap();
    hb.0.write("README.md", &page.replace(PORT, &here));
    let section = format!("{}#By hand", hb.0.path("README.md").display());
    typed_in(&section, hb.0.dir(), 14, |command| match command {
        copy if copy.starts_with("cp -r") => format!("{copy} && sed -i s/{PORT}/{here}/ hb.yaml"),
        other => other.to_owned(),
    });
}

/// A daemon that the page starts ends with the test, whatever became of the page.
struct Background(Hb);

impl Drop for Background {
    fn drop(&mut self) {
        let Ok(pid) = fs::read_to_string(self.0.path("plant/daemon.pid")) else { return };
        let _ = Command::new("kill").args(["-s", "KILL", pid.trim()]).output();
    }
}

#[test]
fn the_plant_is_typed_as_services_of_a_machine() {
    let Some(machine) = deploy::machine("the plant as services") else { return };
    mosquitto(&machine);
    typed_on(&machine, &format!("{PAGE}#As services"), 16);
    let left = machine.done("ls /etc/systemd/system /etc/systemd/system/hb-daemon.service.d /var/lib/hb");
    assert!(!left.contains("plant"), "{left}");
}

#[test]
fn systemd_finds_the_units_of_the_plant_sound() {
    let Some(machine) = deploy::machine("the units of the plant") else { return };
    mosquitto(&machine);
    deploy::lay_out(&machine.given().join("tree"));
    let plant = format!("{GIVEN}/tree/examples/plant");
    machine.done(&format!(
        "sh {GIVEN}/tree/examples/deploy/install.sh
         install -D -m 644 -t /etc/systemd/system/hb-daemon.service.d {plant}/plant.conf
         install -m 644 {plant}/hb-plant.service /etc/systemd/system"
    ));
    for unit in ["hb-daemon.service", "hb-plant.service"] {
        let said = machine.done(&format!("systemd-analyze verify --man=no --recursive-errors=no {unit} 2>&1"));
        assert_eq!(said, "", "{unit}");
    }
    let exec = machine.done("systemctl daemon-reload && systemctl show --property ExecStart hb-daemon");
    assert!(exec.matches("argv[]=").count() == 1 && exec.contains("/var/lib/hb/plant/hb.yaml"), "{exec}");
}

/// Debian's mosquitto as a service of the machine, as its package leaves it.
fn mosquitto(machine: &Machine) {
    let unit = "mosquitto.service";
    let text = fs::read_to_string(format!("/lib/systemd/system/{unit}"));
    fs::write(machine.given().join(unit), text.expect("mosquitto: apt-get install mosquitto, or cargo xtask test"))
        .unwrap();
    machine.done(&format!(
        "cp {GIVEN}/{unit} /etc/systemd/system
         install -d -o mosquitto -m 700 /var/lib/mosquitto
         systemctl daemon-reload
         systemctl start mosquitto"
    ));
}
