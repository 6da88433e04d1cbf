// SPDX-License-Identifier: Apache-2.0
#include <QAction>
#include <QApplication>
#include <QCheckBox>
#include <QComboBox>
#include <QDialog>
#include <QImage>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMenu>
#include <QPainter>
#include <QPlainTextEdit>
#include <QProgressBar>
#include <QPushButton>
#include <QRadioButton>
#include <QScrollBar>
#include <QSlider>
#include <QSpinBox>
#include <QStyleOption>
#include <QTabBar>
#include <QTest>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <functional>

#include "gui_fixture.h"
#include "ui/budget_curve.h"
#include "ui/dialogs/settings_dialog.h"
#include "ui/dialogs/synth_dialog.h"
#include "ui/main_window.h"
#include "ui/map_header.h"
#include "ui/section_label.h"
#include "ui/style.h"
#include "ui/theme.h"
#include "ui/wrap_row.h"

using namespace sparsight;
using namespace sparsight::test;

namespace {

/// How many pixels of the picture have about this colour.
int count(const QImage& image, const QColor& color) {
  int found = 0;
  for (int y = 0; y < image.height(); ++y)
    for (int x = 0; x < image.width(); ++x) {
      const QColor at = image.pixelColor(x, y);
      if (std::abs(at.red() - color.red()) <= 3 && std::abs(at.green() - color.green()) <= 3 &&
          std::abs(at.blue() - color.blue()) <= 3)
        ++found;
    }
  return found;
}

/// Letters whose strokes are wide enough to have pixels of the whole colour, in any font.
QFont wide(QFont font) {
  font.setPixelSize(40);
  return font;
}

/// Qt hands palette and font to the widgets in the next turn of the event loop.
void useTheme(bool dark) {
  Theme::apply(dark);
  QCoreApplication::processEvents();
}

/// A control on a panel, in a window of its own that is active; something else has the focus.
struct Stand {
  explicit Stand(QWidget* made) : control(made), other(new QWidget) {
    panel.setProperty("role", QStringLiteral("panel"));
    auto* column = new QVBoxLayout(&panel);
    column->addWidget(control, 0, Qt::AlignLeft | Qt::AlignTop);
    other->setFocusPolicy(Qt::StrongFocus);
    other->setFixedSize(2, 2);
    column->addWidget(other);
    panel.show();
    shown = QTest::qWaitForWindowExposed(&panel);
    QApplication::setActiveWindow(&panel);  // a bare X server has no window manager that would
    other->setFocus();
  }
  [[nodiscard]] QImage picture() {
    QCoreApplication::processEvents();
    control->setAttribute(Qt::WA_UnderMouse, false);  // wherever the pointer of this display is
    return panel.grab(QRect(control->pos(), control->size())).toImage();
  }
  QWidget panel;
  QWidget *control, *other;
  bool shown = false;
};

using Make = std::function<QWidget*()>;
const std::vector<std::pair<const char*, Make>>& controls() {
  static const std::vector<std::pair<const char*, Make>> all{
      {"push button", [] { return new QPushButton(QStringLiteral("Measure")); }},
      {"primary button",
       [] {
         auto* button = new QPushButton(QStringLiteral("Measure"));
         button->setProperty("primary", true);
         return button;
       }},
      {"link",
       [] {
         auto* button = new QPushButton(QStringLiteral("Measure"));
         button->setProperty("link", true);
         return button;
       }},
      {"tool button",
       [] {
         auto* button = new QToolButton;
         button->setText(QStringLiteral("Measure"));
         return button;
       }},
      {"line edit", [] { return new QLineEdit(QStringLiteral("0.25")); }},
      {"spin box", [] { return new QSpinBox; }},
      {"combo box",
       [] {
         auto* box = new QComboBox;
         box->addItem(QStringLiteral("Layers"));
         return box;
       }},
      {"check box", [] { return new QCheckBox(QStringLiteral("All")); }},
      {"radio button", [] { return new QRadioButton(QStringLiteral("All")); }},
      {"slider", [] { return new QSlider(Qt::Horizontal); }},
      {"text", [] { return new QPlainTextEdit(QStringLiteral("text")); }},
      {"list",
       [] {
         auto* list = new QListWidget;
         list->addItems({QStringLiteral("one"), QStringLiteral("two")});
         list->setCurrentRow(0);
         return list;
       }},
      {"tabs",
       [] {
         auto* tabs = new QTabBar;
         tabs->addTab(QStringLiteral("Map"));
         tabs->addTab(QStringLiteral("Frames"));
         return tabs;
       }},
  };
  return all;
}

void eachControl() {
  QTest::addColumn<int>("index");
  for (std::size_t i = 0; i < controls().size(); ++i) QTest::newRow(controls()[i].first) << static_cast<int>(i);
}
QWidget* made(int index) { return controls()[static_cast<std::size_t>(index)].second(); }

QString withSheet(const QWidget* widget) {
  QString found;
  if (!widget->styleSheet().isEmpty())
    found = QStringLiteral("%1 %2; ").arg(QLatin1String(widget->metaObject()->className()), widget->objectName());
  for (const QObject* child : widget->children())
    if (child->isWidgetType()) found += withSheet(static_cast<const QWidget*>(child));
  return found;
}

}  // namespace

class TstStyle : public QObject {
  Q_OBJECT
  PrivateHome m_home;

 private Q_SLOTS:
  void initTestCase() { useTheme(true); }
  void cleanup() {
    fonts::setScale(1.0);
    useTheme(true);
  }

  void nothingHasAStyleSheet() {
    // One sheet makes every theme change and every new widget match all rules: a third of a second for the window.
    Session session;
    MainWindow window(session, Settings());
    window.resize(1400, 900);
    window.show();
    QVERIFY(QTest::qWaitForWindowExposed(&window));
    for (const char* layout : {"diagnose", "tune", "compare", "teach"}) window.setLayoutPreset(QLatin1String(layout));
    const SettingsDialog settings{Settings(), &window};
    const SynthDialog synth(&window);
    const char* why = "a style sheet costs a third of a second per theme change; see ui/style.h: ";
    QVERIFY2(qApp->styleSheet().isEmpty(), why);
    const QString found = withSheet(&window);
    QVERIFY2(found.isEmpty(), qPrintable(QLatin1String(why) + found));
  }

  void aThemeChangeRepaintsInItsColours_data() { eachControl(); }
  void aThemeChangeRepaintsInItsColours() {
    QFETCH(int, index);
    Stand stand(made(index));
    QVERIFY(stand.shown);
    const QImage dark = stand.picture();
    useTheme(false);
    const QImage light = stand.picture();
    QCOMPARE(light.size(), dark.size());
    QVERIFY(light != dark);
    for (const Theme* theme : {&Theme::light(), &Theme::darkTheme()}) {
      const QImage& own = theme->dark ? dark : light;
      const QImage& other = theme->dark ? light : dark;
      int ours = 0, strangers = 0;
      for (const QColor& token : {theme->panel, theme->field, theme->raised, theme->accent, theme->text}) {
        ours += count(own, token);
        strangers += count(other, token);
      }
      QVERIFY2(ours > 3 * strangers, qPrintable(QStringLiteral("%1 against %2").arg(ours).arg(strangers)));
    }
    // Back again: nothing of the other theme stays.
    useTheme(true);
    QCOMPARE(stand.picture(), dark);
  }

  void theFocusIsSeen_data() { eachControl(); }
  void theFocusIsSeen() {
    QFETCH(int, index);
    Stand stand(made(index));
    QVERIFY(stand.shown);
    for (const bool dark : {true, false}) {
      useTheme(dark);
      stand.other->setFocus();
      const Theme& theme = Theme::current();
      const bool primary = stand.control->property("primary").toBool();
      const bool slider = qobject_cast<QSlider*>(stand.control) != nullptr;
      const QColor ring = primary || slider ? theme.text : theme.accent;
      const int without = count(stand.picture(), ring);
      stand.control->setFocus(Qt::TabFocusReason);
      QVERIFY(stand.control->hasFocus());
      QVERIFY2(count(stand.picture(), ring) >= without + 10,
               qPrintable(QStringLiteral("%1 then %2").arg(without).arg(count(stand.picture(), ring))));
    }
  }

  void whatIsDisabledLooksSo_data() { eachControl(); }
  void whatIsDisabledLooksSo() {
    QFETCH(int, index);
    Stand stand(made(index));
    const QImage before = stand.picture();
    stand.control->setEnabled(false);
    QVERIFY(stand.picture() != before);
  }

  void thePointerIsFollowed() {
    for (const char* look : {"", "primary", "layoutTab", "link"}) {
      QPushButton button(QStringLiteral("Measure"));
      if (*look != 0) button.setProperty(look, true);
      button.ensurePolished();
      QVERIFY(button.testAttribute(Qt::WA_Hover));  // else Qt paints nothing when the pointer comes
      const auto picture = [&](QStyle::State state) {
        QStyleOptionButton option;
        option.initFrom(&button);
        option.rect = QRect(QPoint(0, 0), button.sizeHint());
        option.text = button.text();
        option.state = QStyle::State_Enabled | state;
        QImage image(option.rect.size(), QImage::Format_RGB32);
        image.fill(Theme::current().panel);
        QPainter painter(&image);
        button.style()->drawControl(QStyle::CE_PushButton, &option, &painter, &button);
        return image;
      };
      const QImage still = picture(QStyle::State_Raised), hovered = picture(QStyle::State_MouseOver);
      QVERIFY2(hovered != still, look);
      if (QByteArray(look) == "primary") continue;  // pressed as hovered
      QVERIFY2(picture(QStyle::State_MouseOver | QStyle::State_Sunken) != hovered, look);
    }
  }

  void thePrimaryButtonIsFilledWithTheAccent() {
    auto* button = new QPushButton(QStringLiteral("Open"));
    Stand stand(button);
    for (const bool dark : {true, false}) {
      useTheme(dark);
      const Theme& theme = Theme::current();
      setLook(button, "primary", false);
      QVERIFY(count(stand.picture(), theme.accent) < 10);
      const int narrow = button->sizeHint().width();
      setLook(button, "primary", true);
      const int area = button->width() * button->height();
      QVERIFY(count(stand.picture(), theme.accent) > area / 2);
      QVERIFY(button->sizeHint().width() > narrow);  // its text is heavier, and is not cut off
      button->setEnabled(false);
      QVERIFY(count(stand.picture(), theme.accent) == 0);
      button->setEnabled(true);
    }
  }

  void anInvalidFieldHasTheLineOfErrors() {
    for (const Make& make :
         std::vector<Make>{[] { return new QLineEdit; }, [] { return new QSpinBox; }, [] { return new QComboBox; }}) {
      Stand stand(make());
      const QColor error = Theme::current().error;
      QCOMPARE(count(stand.picture(), error), 0);
      setLook(stand.control, "invalid", true);
      const int around = 2 * (stand.control->width() + stand.control->height());
      QVERIFY(count(stand.picture(), error) > around);  // two points wide, less the corners
      stand.control->setFocus();
      QVERIFY(count(stand.picture(), error) > around);  // the focus does not hide it
      setLook(stand.control, "invalid", false);
      QCOMPARE(count(stand.picture(), error), 0);
    }
  }

  void sizesFollowTheInterface_data() { eachControl(); }
  void sizesFollowTheInterface() {
    QFETCH(int, index);
    Stand stand(made(index));
    QWidget& control = *stand.control;
    const QSize plain = control.sizeHint();
    fonts::setScale(2.0);
    useTheme(true);
    QCoreApplication::processEvents();
    const QSize large = control.sizeHint();
    // Views and texts are as large as they are given room.
    if (qobject_cast<QAbstractScrollArea*>(&control) != nullptr || qobject_cast<QSlider*>(&control) != nullptr) return;
    QVERIFY(large.height() > plain.height());
    QVERIFY(large.width() > plain.width());
    QVERIFY(large.height() >= QFontMetrics(control.font()).height());
    QTRY_VERIFY(control.width() >= control.minimumSizeHint().width());
    fonts::setScale(0.8);
    useTheme(true);
    QVERIFY(control.sizeHint().height() <= plain.height());
    fonts::setScale(1.0);
    useTheme(true);
    QCOMPARE(control.sizeHint(), plain);
  }

  void controlsOfARowAreAsHigh() {
    QToolButton framed;
    framed.setProperty("framed", true);
    framed.setText(QStringLiteral("Methods"));
    QPushButton push(QStringLiteral("Run"));
    QLineEdit line;
    QSpinBox spin;
    QComboBox combo;
    for (const double scale : {0.8, 1.0, 1.5, 2.0}) {
      fonts::setScale(scale);
      useTheme(true);
      for (QWidget* control : std::vector<QWidget*>{&framed, &push, &line, &spin, &combo}) {
        control->ensurePolished();
        QCOMPARE(control->sizeHint().height(), fonts::px(Theme::kControl - 2) + 2);
      }
    }
  }

  void rowsOfControlsGrowWithTheInterface() {
    WrapRow row;
    auto* combo = new CaptionCombo(QStringLiteral("pooling"));
    combo->addItem(QStringLiteral("max"));
    row.addControl(combo);
    auto* tool = new QToolButton;
    tool->setText(QStringLiteral("Brush"));
    row.addControl(tool);
    row.resize(90, 40);  // one below the other
    row.show();
    QVERIFY(QTest::qWaitForWindowExposed(&row));
    for (const double scale : {1.0, 2.0}) {
      fonts::setScale(scale);
      useTheme(true);
      for (const QWidget* control : std::vector<QWidget*>{combo, tool}) {
        QTRY_VERIFY(control->height() >= fonts::px(Theme::kControl));
        QVERIFY(control->height() >= QFontMetrics(control->font()).height());
      }
      QVERIFY(tool->y() >= combo->geometry().bottom());
    }
  }

  void aFocusChangesNoSize_data() { eachControl(); }
  void aFocusChangesNoSize() {
    QFETCH(int, index);
    Stand stand(made(index));
    const QSize before = stand.control->sizeHint();
    stand.control->setFocus();
    QCOMPARE(stand.control->sizeHint(), before);
  }

  void labelsTakeTheColourOfTheirRole() {
    auto* label = new QLabel(QStringLiteral("MMMM"));
    label->setFont(wide(label->font()));
    Stand stand(label);
    for (const bool dark : {true, false}) {
      useTheme(dark);
      const Theme& theme = Theme::current();
      const std::pair<const char*, QColor> roles[] = {
          {"", theme.text}, {"secondary", theme.secondary}, {"warning", theme.warning}, {"error", theme.error}};
      for (const auto& [role, color] : roles) {
        setRole(label, QLatin1String(role));
        QVERIFY2(count(stand.picture(), color) > 4, role);
        QVERIFY(contrastRatio(label->palette().color(label->foregroundRole()), theme.panel) >= 4.5);
      }
    }
    NoteLabel note;
    note.setRole(NoteLabel::Role::Error);
    QCOMPARE(note.palette().color(note.foregroundRole()), Theme::current().error);
    useTheme(true);
    QCOMPARE(note.palette().color(note.foregroundRole()), Theme::current().error);
  }

  void textsReachTheirContrast() {
    for (const Theme* theme : {&Theme::light(), &Theme::darkTheme()}) {
      const std::tuple<const char*, QColor, QColor> pairs[] = {
          {"button", theme->text, theme->raised},          {"hovered button", theme->text, theme->hover},
          {"pressed button", theme->text, theme->pressed}, {"field", theme->text, theme->field},
          {"selected row", theme->text, theme->selection}, {"other row", theme->text, theme->alternate},
          {"primary", theme->onAccent, theme->accent},     {"hovered primary", theme->onAccent, theme->accentHover}};
      for (const auto& [name, text, surface] : pairs) QVERIFY2(contrastRatio(text, surface) >= 4.5, name);
      // Outlines by which a control is found.
      QVERIFY(contrastRatio(theme->accent, theme->field) >= 3.0);
      QVERIFY(contrastRatio(theme->error, theme->field) >= 3.0);
    }
  }

  void anOpenListIsRaisedAndMarksItsRow() {
    auto* box = new QComboBox;
    box->addItems({QStringLiteral("Layers"), QStringLiteral("Steps"), QStringLiteral("Heads")});
    box->setCurrentIndex(1);
    Stand stand(box);
    box->showPopup();
    QWidget* list = box->findChild<QAbstractItemView*>()->window();
    QVERIFY(QTest::qWaitForWindowExposed(list));
    const QImage picture = list->grab().toImage();
    const Theme& theme = Theme::current();
    QVERIFY(count(picture, theme.raised) > picture.width() * picture.height() / 3);
    QVERIFY(count(picture, theme.accent) > picture.width() * Theme::kControl / 2);
    QVERIFY(list->height() >= 3 * (Theme::kControl - 2));
    box->hidePopup();
  }

  void aMenuShowsKeysChecksAndTheActiveRow() {
    QMenu menu;
    menu.setFont(wide(menu.font()));
    QAction* open = menu.addAction(QStringLiteral("Open"));
    open->setShortcut(QKeySequence(QStringLiteral("Ctrl+O")));
    QAction* checked = menu.addAction(QStringLiteral("Checked"));
    checked->setCheckable(true);
    menu.popup(QPoint(50, 50));
    QVERIFY(QTest::qWaitForWindowExposed(&menu));
    const Theme& theme = Theme::current();
    const QRect row = menu.actionGeometry(checked), mark(row.x(), row.y(), 24, row.height());
    const auto picture = [&](const QRect& part) { return menu.grab(part).toImage(); };
    menu.setActiveAction(nullptr);
    QCOMPARE(count(picture(mark), theme.secondary), 0);
    checked->setChecked(true);
    QVERIFY(count(picture(mark), theme.secondary) > 4);
    const QRect keys = menu.actionGeometry(open).adjusted(menu.actionGeometry(open).width() / 2, 0, -20, 0);
    QVERIFY(count(picture(keys), theme.text) > 10);
    menu.setActiveAction(open);
    const QRect active = menu.actionGeometry(open);
    QVERIFY(count(picture(active), theme.accent) > active.width() * active.height() / 2);
  }

  void barsShowHowFarTheyAre() {
    auto* bar = new QProgressBar;
    bar->setTextVisible(false);
    bar->setFixedWidth(200);
    Stand stand(bar);
    int last = -1;
    for (const int value : {0, 25, 50, 100}) {
      bar->setValue(value);
      const int now = count(stand.picture(), Theme::current().accent);
      QVERIFY(now > last);
      last = now;
    }
    auto* slider = new QSlider(Qt::Horizontal);
    slider->setFixedWidth(200);
    Stand other(slider);
    slider->setValue(0);
    const int empty = count(other.picture(), Theme::current().accent);
    slider->setValue(99);
    QVERIFY(count(other.picture(), Theme::current().accent) > empty + 300);
    // What is painted is what the mouse takes.
    slider->setValue(0);
    QTest::mousePress(slider, Qt::LeftButton, {}, QPoint(7, slider->height() / 2));
    QVERIFY(slider->isSliderDown());
    QTest::mouseRelease(slider, Qt::LeftButton, {}, QPoint(7, slider->height() / 2));
  }

  void aScrollBarMovesByItsHandle() {
    auto* bar = new QScrollBar(Qt::Vertical);
    bar->setRange(0, 100);
    bar->setPageStep(50);
    bar->setFixedHeight(150);
    Stand stand(bar);
    QTest::mousePress(bar, Qt::LeftButton, {}, QPoint(5, 10));
    QVERIFY(bar->isSliderDown());
    QTest::mouseMove(bar, QPoint(5, 60));
    QVERIFY(bar->value() > 30);
    QTest::mouseRelease(bar, Qt::LeftButton, {}, QPoint(5, 60));
    const int before = bar->value();
    QTest::mouseClick(bar, Qt::LeftButton, {}, QPoint(5, 2));
    QVERIFY(bar->value() < before);
  }

  void theArrowsOfASpinBoxCount() {
    auto* box = new QSpinBox;
    Stand stand(box);
    QTest::mouseClick(box, Qt::LeftButton, {}, QPoint(box->width() - 8, box->height() / 4));
    QCOMPARE(box->value(), 1);
    QTest::mouseClick(box, Qt::LeftButton, {}, QPoint(box->width() - 8, box->height() * 3 / 4));
    QCOMPARE(box->value(), 0);
  }
};

QTEST_MAIN(TstStyle)
#include "tst_style.moc"
