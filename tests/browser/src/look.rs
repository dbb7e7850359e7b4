//! Screenshots, on a desk and on a phone, by day and by night.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::browser::Browser;

/// A way of looking at a page.
struct Look {
    name: &'static str,
    width: u32,
    height: u32,
    phone: bool,
    colours: &'static str,
}

const LOOKS: [Look; 4] = [
    Look { name: "desk-light", width: 1280, height: 900, phone: false, colours: "light" },
    Look { name: "desk-dark", width: 1280, height: 900, phone: false, colours: "dark" },
    Look { name: "phone-light", width: 390, height: 844, phone: true, colours: "light" },
    Look { name: "phone-dark", width: 390, height: 844, phone: true, colours: "dark" },
];

impl Browser {
    /// Takes pictures of the whole page in every look. None may be wider than its screen.
    pub fn shots(&self, state: &str) {
        for look in &LOOKS {
            self.tools(
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.phone }),
            );
            let colours = json!({ "name": "prefers-color-scheme", "value": look.colours });
            // Or the picture is taken while the colours still change.
            let calm = json!({ "name": "prefers-reduced-motion", "value": "reduce" });
            self.tools("Emulation.setEmulatedMedia", json!({ "features": [colours, calm] }));
            let width = self.shot(&format!("{state}-{}", look.name));
            assert!(width <= f64::from(look.width), "{state}, {}: the page is {width} px wide", look.name);
        }
        self.tools("Emulation.setEmulatedMedia", json!({ "features": [] }));
        self.tools("Emulation.clearDeviceMetricsOverride", json!({}));
    }

    /// Takes a picture of the whole page as it is; how wide that is, in pixels.
    pub fn shot(&self, state: &str) -> f64 {
        let page = self.tools("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let number = |name: &str| page[name].as_f64().expect("the tools tell sizes");
        let (width, height) = (number("width"), number("height"));
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        // What lies under a dialog is darkened as far as the screen goes, so that is what is taken.
        let how = if self.texts("dialog[open]").is_empty() {
            json!({ "format": "png", "captureBeyondViewport": true, "clip": clip })
        } else {
            json!({ "format": "png" })
        };
        let picture = self.tools("Page.captureScreenshot", how);
        let bytes = picture.get("data").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
        let mut file = self.shots.clone().into_os_string();
        file.push(format!("-{state}.png"));
        fs::write(PathBuf::from(file), bytes.expect("the tools take pictures")).expect("a picture can be kept");
        width
    }
}
