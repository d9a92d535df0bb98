//! From the template's text to a new device's.

use super::name::Name;

/// A line with this begins a part that is about the template itself.
const BEGIN: &str = "template only:";
/// A line with this ends it.
const END: &str = "end of template only";

/// What is written in place of what.
pub struct Rename {
    /// Where two fit, the first counts.
    pairs: Vec<(String, String)>,
}

impl Rename {
    /// The names of the template and of the new device, and their device IDs if the new one is known.
    pub fn new(name: &Name, id: Option<u32>) -> Self {
        let mut pairs = vec![
            ("vhost_device_template".to_owned(), name.crate_name()),
            ("Template".to_owned(), name.type_name()),
            ("template".to_owned(), name.to_string()),
        ];
        if let Some(id) = id {
            pairs.push(("DeviceId(63)".to_owned(), format!("DeviceId({id})")));
            pairs.push(("device ID 63".to_owned(), format!("device ID {id}")));
        }
        Self { pairs }
    }

    /// The text for the new device.
    pub fn apply(&self, text: &str) -> String {
        let mut rest = without_template_parts(text);
        let mut result = String::new();
        // one pass over the text: what was put in is never replaced again
        while let Some((at, from, to)) = self.next_in(&rest) {
            result.push_str(&rest[..at]);
            result.push_str(to);
            rest.drain(..at + from.len());
        }
        result + &rest
    }

    fn next_in(&self, text: &str) -> Option<(usize, &str, &str)> {
        self.pairs
            .iter()
            .filter_map(|(from, to)| Some((text.find(from)?, from.as_str(), to.as_str())))
            .min_by_key(|(at, _, _)| *at)
    }
}

fn without_template_parts(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.split_inclusive('\n') {
        if line.contains(END) {
            inside = false;
        } else if inside || line.contains(BEGIN) {
            inside = true;
        } else {
            kept.push_str(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_once_even_where_the_new_one_contains_the_old() {
        let rename = Rename::new(&"my-template".parse().unwrap(), Some(7));
        let text = "vhost_device_template vhost-device-template TemplateService DeviceId(63) 63";
        assert_eq!(
            rename.apply(text),
            "vhost_device_my_template vhost-device-my-template MyTemplateService DeviceId(7) 63"
        );
    }

    #[test]
    fn without_an_id_the_templates_stays() {
        let rename = Rename::new(&"fire".parse().unwrap(), None);
        assert_eq!(rename.apply("DeviceId(63)"), "DeviceId(63)");
    }

    #[test]
    fn what_is_about_the_template_itself_is_left_out() {
        let text = "a\n<!-- template only: -->\nb\n\nc\n<!-- end of template only -->\nd";
        let rename = Rename::new(&"fire".parse().unwrap(), None);
        assert_eq!(rename.apply(text), "a\nd");
    }
}
