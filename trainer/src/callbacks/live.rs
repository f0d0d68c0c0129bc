//! Live curves: accuracy and loss of training and validation below the epoch lines, in the normal screen (nothing is
//! hidden, the last picture stays). The terminal is left in its normal input mode, so Ctrl-C works as always.

use std::{
    io::{self, Stderr, Write, stderr},
    sync::Once,
    time::{Duration, Instant},
};

use crossterm::{cursor, execute, style::ResetColor, terminal};
use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::Marker,
    text::Line,
    widgets::{
        Axis, Block, Chart, Dataset, GraphType, LegendPosition, LineGauge, Paragraph, Widget,
    },
};

use super::{
    Callback, CallbackError, EpochLog, Plan, StepLog,
    curves::{Quantity, label},
    progress::{Pace, epoch_line, headline, status, validation_status},
};

const HEIGHT: u16 = 15;
/// Smallest terminal: columns, rows.
const SMALLEST: (u16, u16) = (72, HEIGHT + 5);
const REDRAW: Duration = Duration::from_millis(200);

/// True if the terminal has room for curves.
pub fn fits() -> bool {
    terminal::size().is_ok_and(|(w, h)| w >= SMALLEST.0 && h >= SMALLEST.1)
}

/// Leaves the curves: cursor visible, on the line after them. For a panic or a second Ctrl-C; otherwise dropping [`Live`]
/// does it.
pub fn restore() {
    let _ = execute!(stderr(), cursor::Show, ResetColor);
    let _ = writeln!(stderr());
}

/// The curves with the status line.
#[derive(Debug)]
pub struct Live {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    screen: Screen,
    drawn: Instant,
    ended: bool,
}

/// What is on the screen.
#[derive(Debug)]
struct Screen {
    plan: Plan,
    epochs: Vec<EpochLog>,
    now: Option<StepLog>,
    /// Images that are validated, of how many.
    validation: Option<(usize, usize)>,
    pace: Pace,
}

impl Live {
    /// Draws the empty curves at once.
    ///
    /// # Errors
    /// The terminal does not answer.
    pub fn new(plan: &Plan) -> Result<Self, CallbackError> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        let options = TerminalOptions {
            viewport: Viewport::Inline(HEIGHT),
        };
        let terminal = Terminal::with_options(CrosstermBackend::new(stderr()), options)
            .map_err(CallbackError::Terminal)?;
        let mut live = Self {
            terminal,
            screen: Screen {
                plan: plan.clone(),
                epochs: plan.history.clone(),
                now: None,
                validation: None,
                pace: Pace::start(),
            },
            drawn: Instant::now(),
            ended: false,
        };
        live.draw().map_err(CallbackError::Terminal)?;
        Ok(live)
    }

    fn draw(&mut self) -> io::Result<()> {
        self.drawn = Instant::now();
        self.terminal.draw(|frame| self.screen.render(frame))?;
        Ok(())
    }

    fn line_above(&mut self, text: &str) -> io::Result<()> {
        let width = self.terminal.size()?.width.max(1) as usize;
        let rows = text.chars().count().div_ceil(width).max(1) as u16;
        self.terminal.insert_before(rows, |buffer| {
            Paragraph::new(text)
                .wrap(ratatui::widgets::Wrap { trim: false })
                .render(buffer.area, buffer);
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.draw()?;
        let bottom = self.terminal.get_frame().area().bottom().saturating_sub(1);
        self.terminal.set_cursor_position((0, bottom))?;
        self.terminal.show_cursor()?;
        writeln!(stderr())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // In a panic the hook has left the curves already; drawing again would hide its message.
        if !std::thread::panicking() {
            let _ = self.finish();
        }
    }
}

impl Callback for Live {
    fn step(&mut self, log: &StepLog) -> Result<(), CallbackError> {
        self.screen.now = Some(*log);
        if self.drawn.elapsed() < REDRAW {
            return Ok(());
        }
        self.screen.pace.update(&self.screen.plan, log);
        self.draw().map_err(CallbackError::Terminal)
    }

    fn validation(&mut self, done: usize, images: usize) -> Result<(), CallbackError> {
        self.screen.validation = Some((done, images));
        if self.drawn.elapsed() < REDRAW {
            return Ok(());
        }
        self.draw().map_err(CallbackError::Terminal)
    }

    fn epoch(&mut self, log: &EpochLog) -> Result<(), CallbackError> {
        self.screen.validation = None;
        self.screen.epochs.push(*log);
        if log.epoch < self.screen.plan.epochs {
            self.screen.now = None;
        }
        self.screen.pace.next_epoch();
        let line = epoch_line(log, self.screen.plan.epochs);
        self.line_above(&line)
            .and_then(|()| self.draw())
            .map_err(CallbackError::Terminal)
    }

    fn message(&mut self, text: &str) -> Result<(), CallbackError> {
        self.line_above(text).map_err(CallbackError::Terminal)
    }

    fn end(&mut self) -> Result<(), CallbackError> {
        self.finish().map_err(CallbackError::Terminal)
    }
}

impl Screen {
    fn render(&self, frame: &mut Frame<'_>) {
        let [charts, gauge, state] = Layout::vertical([
            Constraint::Min(6),
            Constraint::Length(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
                .areas(charts);
        self.chart(frame, left, Quantity::Accuracy);
        self.chart(frame, right, Quantity::Loss);

        let done = self.now.map_or(0.0, |log| {
            log.samples as f64 / self.plan.samples_per_epoch.max(1) as f64
        });
        let epoch = self
            .now
            .map(|log| log.epoch)
            .or(self
                .epochs
                .last()
                .map(|log| (log.epoch + 1).min(self.plan.epochs)))
            .unwrap_or(1);
        let bar = LineGauge::default()
            .filled_style(Style::new().fg(Color::Blue))
            .unfilled_style(Style::new().fg(Color::DarkGray))
            .label(format!(
                "epoch {epoch}/{} {:>3.0}%",
                self.plan.epochs,
                done * 100.0
            ))
            .ratio(done.clamp(0.0, 1.0));
        frame.render_widget(bar, gauge);
        let text = match (self.validation, &self.now) {
            (Some((done, images)), _) => validation_status(done, images),
            (None, Some(log)) => status(&self.plan, log, &self.pace),
            (None, None) => headline(&self.plan),
        };
        let line = Line::from(text);
        // The cursor stays visible, so a terminal whose run was killed needs no repair.
        let end = state.x + (line.width() as u16).min(state.width.saturating_sub(1));
        frame.set_cursor_position((end, state.y));
        frame.render_widget(line, state);
    }

    fn chart(&self, frame: &mut Frame<'_>, area: Rect, quantity: Quantity) {
        let reference = self
            .plan
            .reference_accuracy
            .filter(|_| quantity == Quantity::Accuracy);
        let mut points = [Vec::new(), Vec::new()];
        for log in &self.epochs {
            for (series, value) in quantity.values(log).into_iter().enumerate() {
                points[series].push((log.epoch as f64, f64::from(value)));
            }
        }
        let mut range = quantity.range(&self.epochs, reference);
        if let Some(log) = self
            .now
            .filter(|now| self.epochs.last().is_none_or(|e| e.epoch < now.epoch))
        {
            let part = log.samples as f64 / self.plan.samples_per_epoch.max(1) as f64;
            let value = f64::from(match quantity {
                Quantity::Accuracy => log.accuracy,
                Quantity::Loss => log.loss,
            });
            if value.is_finite() {
                points[0].push(((log.epoch - 1) as f64 + part, value));
                range = [range[0].min(value), range[1].max(value)];
            }
        }
        let last = (self.plan.epochs as f64).max(1.0);
        let dashes: Vec<(f64, f64)> = reference.map_or(Vec::new(), |reference| {
            let count = usize::from(area.width / 2).max(2);
            (0..count)
                .map(|i| (last * i as f64 / (count - 1) as f64, f64::from(reference)))
                .collect()
        });
        let series = |name: &'static str, color, data| {
            Dataset::default()
                .name(name)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(color))
                .data(data)
        };
        let mut datasets = Vec::new();
        if !dashes.is_empty() {
            datasets.push(
                Dataset::default()
                    .name("reference")
                    .marker(Marker::Braille)
                    .graph_type(GraphType::Scatter)
                    .style(Style::new().fg(Color::DarkGray))
                    .data(&dashes),
            );
        }
        datasets.push(series("training", Color::Blue, &points[0]));
        datasets.push(series("validation", Color::Yellow, &points[1]));

        let labels: Vec<String> = [range[0], (range[0] + range[1]) / 2.0, range[1]]
            .iter()
            .map(|&y| label(quantity, y, &[0.0, (range[1] - range[0]) / 20.0]))
            .collect();
        let muted = Style::new().fg(Color::DarkGray);
        let (title, legend) = match quantity {
            Quantity::Accuracy => ("accuracy", LegendPosition::BottomRight),
            Quantity::Loss => ("loss", LegendPosition::TopRight),
        };
        let chart = Chart::new(datasets)
            .block(Block::new().title(Line::styled(
                title,
                Style::new().add_modifier(Modifier::BOLD),
            )))
            .legend_position(Some(legend))
            .hidden_legend_constraints((Constraint::Percentage(60), Constraint::Percentage(60)))
            .x_axis(
                Axis::default()
                    .style(muted)
                    .bounds([0.0, last])
                    .labels(["0".to_string(), format!("{last:.0}")]),
            )
            .y_axis(Axis::default().style(muted).bounds(range).labels(labels));
        frame.render_widget(chart, area);
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;

    fn epoch(epoch: usize) -> EpochLog {
        EpochLog {
            epoch,
            step: 100 * epoch as u64,
            loss: 0.4 / epoch as f32,
            accuracy: 1.0 - 0.1 / epoch as f32,
            val_loss: 0.5 / epoch as f32,
            val_accuracy: 1.0 - 0.12 / epoch as f32,
            learning_rate: 0.001,
            seconds: 3.0,
            samples_per_second: 2000.0,
        }
    }

    /// Two panels with their series, the dashed line at the reference accuracy, and the state of the running epoch.
    #[test]
    fn the_screen_shows_both_panels_and_the_reference() {
        let plan = Plan {
            name: "curves".into(),
            epochs: 5,
            steps_per_epoch: 100,
            samples_per_epoch: 6400,
            reference_accuracy: Some(0.97),
            history: Vec::new(),
        };
        let mut screen = Screen {
            epochs: (1..=3).map(epoch).collect(),
            now: Some(StepLog {
                epoch: 4,
                step: 350,
                samples: 3200,
                loss: 0.1,
                accuracy: 0.975,
                learning_rate: 0.001,
            }),
            validation: None,
            pace: Pace::start(),
            plan,
        };
        let mut terminal = Terminal::new(TestBackend::new(120, HEIGHT)).unwrap();
        terminal.draw(|frame| screen.render(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows: Vec<String> = buffer
            .content()
            .chunks(120)
            .map(|row| row.iter().map(|cell| cell.symbol()).collect())
            .collect();
        let text = rows.join("\n");
        for part in [
            "accuracy",
            "loss",
            "training",
            "validation",
            "reference",
            "epoch 4/5",
            "50%",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let is_dash = |x: u16, y: u16| {
            let cell = &buffer[(x, y)];
            let braille =
                ('\u{2801}'..='\u{28ff}').contains(&cell.symbol().chars().next().unwrap());
            braille && cell.fg == Color::DarkGray
        };
        let dashed = |columns: std::ops::Range<u16>| {
            (0..HEIGHT).any(|y| {
                let row: Vec<bool> = columns.clone().map(|x| is_dash(x, y)).collect();
                let gaps = row.windows(2).filter(|pair| pair[0] && !pair[1]).count();
                gaps >= 8
            })
        };
        assert!(
            dashed(0..60),
            "no dashed line in the accuracy panel:\n{text}"
        );
        assert!(!dashed(60..120), "a dashed line in the loss panel:\n{text}");

        screen.validation = Some((1250, 10_000));
        terminal.draw(|frame| screen.render(frame)).unwrap();
        let last = &terminal.backend().buffer().content()[120 * (HEIGHT as usize - 1)..];
        let last: String = last.iter().map(|cell| cell.symbol()).collect();
        assert_eq!(last.trim_end(), "validation  1,250/10,000 images");
    }
}
