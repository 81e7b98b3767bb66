//! JUnit XML, as pytest writes it → test cases.
//!
//! `testsuites/testsuite/testcase` with `failure`, `error`, `skipped` and `properties` (of the case or its suite):
//! `features`, `severity`, `test_batch_type`, and `status` = `WARNING` for a case that passed with a reservation. A
//! document type is refused, and with it every entity that a file could declare.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::results::{BadResults, MOST_CASES, Severity, Status, TestCase, cut};

/// Elements within elements.
const MOST_DEPTH: usize = 64;
/// Bytes of text kept of one test case, before it is cut to what is shown.
const MOST_TEXT: usize = 8192;

/// Reads one file.
///
/// # Errors
/// Names the line of what is not JUnit XML.
pub fn parse(file: &str, text: &[u8], test_run_id: &str) -> Result<Vec<TestCase>, BadResults> {
    let fail = |at: usize, reason: String| {
        let before = &text[..at.min(text.len())];
        BadResults {
            file: file.into(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            reason,
        }
    };
    let utf8 = std::str::from_utf8(text)
        .map_err(|error| fail(error.valid_up_to(), "it is not UTF-8 text".into()))?;
    let mut reader = Reader::from_str(utf8);
    let mut state = State::new(test_run_id);
    loop {
        let at = |reader: &Reader<_>| usize::try_from(reader.buffer_position()).unwrap_or(0);
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                let place = usize::try_from(reader.error_position()).unwrap_or(0);
                return Err(fail(place, format!("it is not well-formed XML: {error}")));
            }
        };
        if matches!(event, Event::Eof) {
            break;
        }
        state
            .take(event)
            .map_err(|reason| fail(at(&reader), reason))?;
    }
    state.finish().map_err(|reason| fail(text.len(), reason))
}

struct State {
    test_run_id: String,
    path: Vec<String>,
    any_root: bool,
    cases: Vec<TestCase>,
    suite: Properties,
    current: Option<Current>,
}

struct Current {
    name: String,
    class: String,
    duration_ms: Option<u64>,
    properties: Properties,
    status: Status,
    message: String,
    text: String,
}

#[derive(Clone, Default)]
struct Properties {
    features: Vec<String>,
    severity: Option<Severity>,
    /// What stands there instead of a severity; told in the case's message.
    unknown_severity: Option<String>,
    test_batch_type: Option<String>,
    warning: bool,
}

impl State {
    fn new(test_run_id: &str) -> Self {
        Self {
            test_run_id: test_run_id.into(),
            path: Vec::new(),
            any_root: false,
            cases: Vec::new(),
            suite: Properties::default(),
            current: None,
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(element) => self.start(&element),
            Event::Empty(element) => {
                self.start(&element)?;
                self.end();
                Ok(())
            }
            Event::End(_) => {
                self.end();
                Ok(())
            }
            Event::Text(text) => {
                self.text(&text);
                Ok(())
            }
            Event::CData(text) => {
                self.text(&text);
                Ok(())
            }
            Event::DocType(_) => Err("it has a document type, which is not allowed".into()),
            Event::GeneralRef(name) => self.reference(&name),
            _ => Ok(()),
        }
    }

    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        let name = element.local_name().as_ref().to_owned();
        let name = String::from_utf8_lossy(name.as_ref()).into_owned();
        if self.path.is_empty() {
            if !matches!(name.as_str(), "testsuites" | "testsuite") {
                return Err(format!("it is not JUnit XML: the root element is `{name}`"));
            }
            self.any_root = true;
        }
        if self.path.len() >= MOST_DEPTH {
            return Err(format!("elements are nested more than {MOST_DEPTH} deep"));
        }
        match name.as_str() {
            "testsuite" => self.suite = Properties::default(),
            "testcase" => self.start_case(element)?,
            "property" => self.property(element)?,
            "failure" | "error" => self.outcome(element, Status::Fail)?,
            "skipped" => self.outcome(element, Status::Skip)?,
            _ => {}
        }
        self.path.push(name);
        Ok(())
    }

    fn start_case(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        let name = attribute(element, "name")?.ok_or("a test case has no name")?;
        let seconds = attribute(element, "time")?.and_then(|time| time.parse::<f64>().ok());
        self.current = Some(Current {
            name,
            class: attribute(element, "classname")?.unwrap_or_default(),
            duration_ms: seconds
                .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
                .map(|seconds| (seconds * 1000.0).round() as u64),
            properties: self.suite.clone(),
            status: Status::Pass,
            message: String::new(),
            text: String::new(),
        });
        Ok(())
    }

    fn outcome(&mut self, element: &BytesStart<'_>, status: Status) -> Result<(), String> {
        let message = attribute(element, "message")?.unwrap_or_default();
        if let Some(case) = &mut self.current {
            // A test may fail and its teardown have an error: it failed.
            if case.status != Status::Fail {
                case.status = status;
                case.message = message;
            }
        }
        Ok(())
    }

    fn property(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        let name = attribute(element, "name")?.unwrap_or_default();
        let value = attribute(element, "value")?.unwrap_or_default();
        let properties = match &mut self.current {
            Some(case) => &mut case.properties,
            None => &mut self.suite,
        };
        match name.as_str() {
            "features" | "feature" => properties.features.extend(list(&value)),
            "test_batch_type" => properties.test_batch_type = Some(value),
            "severity" => {
                properties.severity = match value.to_ascii_uppercase().as_str() {
                    "NONE" => Some(Severity::None),
                    "LOW" => Some(Severity::Low),
                    "MEDIUM" => Some(Severity::Medium),
                    "HIGH" => Some(Severity::High),
                    _ => {
                        properties.unknown_severity = Some(value);
                        None
                    }
                };
            }
            "status" => properties.warning = value.eq_ignore_ascii_case("WARNING"),
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        let in_outcome = self
            .path
            .last()
            .is_some_and(|name| matches!(name.as_str(), "failure" | "error" | "skipped"));
        // Shown only where there is no message; no more is kept than is shown.
        if let Some(case) = self.current.as_mut().filter(|_| in_outcome)
            && case.text.len() < MOST_TEXT
        {
            case.text.push_str(text);
        }
    }

    fn reference(&mut self, name: &str) -> Result<(), String> {
        let known = matches!(name, "amp" | "lt" | "gt" | "quot" | "apos") || name.starts_with('#');
        if !known {
            return Err(format!(
                "it uses the undeclared entity `{}`",
                name.escape_debug()
            ));
        }
        let text = quick_xml::escape::unescape(&format!("&{name};"))
            .map(std::borrow::Cow::into_owned)
            .map_err(|error| error.to_string())?;
        self.text(&text);
        Ok(())
    }

    fn end(&mut self) {
        if self.path.pop().as_deref() != Some("testcase") {
            return;
        }
        let Some(case) = self.current.take() else {
            return;
        };
        let Properties {
            features,
            severity,
            unknown_severity,
            test_batch_type,
            warning,
        } = case.properties;
        let said = cut(&case.message).or_else(|| cut(&case.text));
        let message = match unknown_severity {
            None => said,
            Some(found) => {
                let complaint = format!(
                    "the property `severity` is `{}`, not NONE, LOW, MEDIUM or HIGH",
                    found.escape_debug()
                );
                let said = said.map(|said| format!("; {said}")).unwrap_or_default();
                cut(&(complaint + &said))
            }
        };
        let status = match case.status {
            Status::Pass if warning => Status::Warning,
            status => status,
        };
        self.cases.push(TestCase {
            test_run_id: self.test_run_id.clone(),
            features,
            test_batch_type: test_batch_type.unwrap_or(case.class),
            name: case.name,
            status,
            severity: Severity::of(status, severity),
            message,
            duration_ms: case.duration_ms,
        });
    }

    fn finish(self) -> Result<Vec<TestCase>, String> {
        if let Some(open) = self.path.last() {
            return Err(format!("it ends within the element `{open}`"));
        }
        if !self.any_root {
            return Err("it is empty".into());
        }
        if self.cases.len() > MOST_CASES {
            return Err(format!(
                "it has {} test cases, at most {MOST_CASES} are read",
                self.cases.len()
            ));
        }
        Ok(self.cases)
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = element
        .try_get_attribute(name)
        .map_err(|error| format!("an attribute is malformed: {error}"))?;
    found
        .map(|attribute| {
            attribute
                .normalized_value(quick_xml::XmlVersion::Implicit1_0)
                .map(std::borrow::Cow::into_owned)
                .map_err(|error| format!("the attribute `{name}` is malformed: {error}"))
        })
        .transpose()
}

/// `a, b`, or a list as Python or JSON prints it.
fn list(value: &str) -> Vec<String> {
    value
        .trim()
        .trim_start_matches(['[', '('])
        .trim_end_matches([']', ')'])
        .split(',')
        .map(|item| item.trim().trim_matches(['\'', '"']).to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTEST: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="4" time="0.040">
<testcase classname="stress.test_missing" name="test_missing[age]" time="0.0015"><properties>
<property name="features" value="['age', 'fare']"/><property name="severity" value="low"/>
<property name="test_batch_type" value="Missing Values"/></properties>
<failure message="AssertionError: drop &gt; 5 %">def test_missing():
&gt; assert</failure></testcase>
<testcase classname="stress.test_a" name="test_ok" time="1"/>
<testcase classname="stress.test_a" name="test_warn"><properties><property name="status" value="WARNING"/></properties></testcase>
<testcase classname="stress.test_a" name="test_skip"><skipped type="pytest.skip" message="no data">x</skipped></testcase>
<testcase classname="stress.test_a" name="test_error"><error>boom &amp; <![CDATA[<crash>]]></error></testcase>
</testsuite></testsuites>"#;

    #[test]
    fn an_unknown_severity_costs_no_case() {
        let text = "<testsuite><testcase name='a'><properties><property name='severity' value='huge'/></properties>\
                    <failure message='boom'/></testcase><testcase name='b'/></testsuite>";
        let cases = parse("junit.xml", text.as_bytes(), "job").unwrap();
        assert_eq!((cases.len(), cases[0].severity), (2, Severity::High));
        let message = cases[0].message.as_deref().unwrap();
        assert!(
            message.contains("`huge`") && message.ends_with("boom"),
            "{message}"
        );
    }

    #[test]
    fn reads_what_pytest_writes() {
        let cases = parse("junit.xml", PYTEST.as_bytes(), "job").unwrap();
        let rows: Vec<_> = cases
            .iter()
            .map(|case| {
                (
                    case.name.as_str(),
                    case.status,
                    case.severity,
                    case.message.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                (
                    "test_missing[age]",
                    Status::Fail,
                    Severity::Low,
                    Some("AssertionError: drop > 5 %")
                ),
                ("test_ok", Status::Pass, Severity::None, None),
                ("test_warn", Status::Warning, Severity::Medium, None),
                ("test_skip", Status::Skip, Severity::None, Some("no data")),
                (
                    "test_error",
                    Status::Fail,
                    Severity::High,
                    Some("boom & <crash>")
                ),
            ]
        );
        assert_eq!(cases[0].features, ["age", "fare"]);
        assert_eq!(cases[0].test_batch_type, "Missing Values");
        assert_eq!(cases[0].duration_ms, Some(2));
        assert_eq!(cases[1].test_batch_type, "stress.test_a");
        assert_eq!(cases[1].test_run_id, "job");
    }

    #[test]
    fn refuses_hostile_and_broken_files_by_line() {
        let bomb = "<?xml version=\"1.0\"?>\n<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>\n<testsuites/>";
        let deep = format!(
            "{}{}",
            "<testsuite>".repeat(100),
            "</testsuite>".repeat(100)
        );
        for (text, line, reason) in [
            (bomb, 2, "document type"),
            (
                "<testsuites>\n<testsuite>\n<testcase name='a'>",
                3,
                "ends within",
            ),
            ("<testsuites>\n</testsuite>", 2, "well-formed"),
            ("", 1, "empty"),
            ("not xml at all", 1, "empty"),
            ("<html></html>", 1, "`html`"),
            ("<testsuite>\n\n<testcase/></testsuite>", 3, "no name"),
            (
                "<testsuite><testcase name='a'><failure>&boom;</failure></testcase></testsuite>",
                1,
                "`boom`",
            ),
            (
                "<testsuite><testcase name='&boom;'/></testsuite>",
                1,
                "malformed",
            ),
            (deep.as_str(), 1, "nested"),
        ] {
            let error = parse("junit.xml", text.as_bytes(), "job").unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.reason.contains(reason), "{error}");
        }
        let error = parse("junit.xml", b"<testsuite>\n\xff</testsuite>", "job").unwrap_err();
        assert_eq!(error.to_string(), "junit.xml, line 2: it is not UTF-8 text");
    }
}
