// SPDX-License-Identifier: Apache-2.0
#include <QAction>
#include <QComboBox>
#include <QDialog>
#include <QDockWidget>
#include <QLayout>
#include <QLineEdit>
#include <QMenu>
#include <QSettings>
#include <QTest>
#include <set>

#include "tests/gui/gui_fixture.h"
#include "ui/help_panel.h"
#include "ui/main_window.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/theme.h"

using namespace sparsight;
using namespace sparsight::test;

namespace {

Settings settingsOf(int percent, bool dark) {
  Settings settings;
  settings.uiScalePercent = percent;
  settings.theme = dark ? Settings::ThemeChoice::Dark : Settings::ThemeChoice::Light;
  return settings;
}

QList<QWidget*> childrenOf(const QWidget& widget) {
  QList<QWidget*> list;
  for (QObject* child : widget.children())
    if (auto* inner = qobject_cast<QWidget*>(child)) list << inner;
  return list;
}

/// What differs between two windows of the same widgets: fonts, colours, widths that are set.
void compare(const QWidget& is, const QWidget& wanted, const QString& path, QStringList& differences) {
  const QString here = path + QLatin1Char('/') + QLatin1String(is.metaObject()->className()) + is.objectName();
  const auto font = [](const QWidget& w) {
    return QStringLiteral("%1 %2 %3").arg(w.font().family()).arg(w.font().pixelSize()).arg(w.font().weight());
  };
  if (font(is) != font(wanted))
    differences << here + QStringLiteral(": ") + font(is) + QStringLiteral(", ") + font(wanted);
  for (int role = 0; role < QPalette::NColorRoles; ++role)
    for (const auto group : {QPalette::Active, QPalette::Inactive, QPalette::Disabled})
      if (const auto r = static_cast<QPalette::ColorRole>(role);
          is.palette().color(group, r) != wanted.palette().color(group, r))
        differences << here + QStringLiteral(": colour %1").arg(role);
  if (is.minimumWidth() == is.maximumWidth() && is.minimumWidth() != wanted.minimumWidth())
    differences << here + QStringLiteral(": width %1, %2").arg(is.minimumWidth()).arg(wanted.minimumWidth());
  // A combo box makes the list it drops when it needs it, at the end of its children.
  const QList<QWidget*> a = childrenOf(is), b = childrenOf(wanted);
  for (qsizetype i = 0; i < std::min(a.size(), b.size()); ++i) compare(*a[i], *b[i], here, differences);
}

/// Whether everything that is painted of a window has one size and one set of colours.
class Watch : public QObject {
 public:
  explicit Watch(QWidget& window) : m_window(window) { qApp->installEventFilter(this); }
  bool eventFilter(QObject* object, QEvent* event) override {
    auto* painted = qobject_cast<QWidget*>(object);
    if (event->type() != QEvent::Paint || painted == nullptr || painted->window() != &m_window) return false;
    std::set<int> sizes;
    std::set<QRgb> colours;
    for (const View* view : m_window.findChildren<View*>()) {
      sizes.insert(view->font().pixelSize());
      colours.insert(view->palette().color(QPalette::Base).rgb());
      if (const auto* note = view->findChild<NoteLabel*>()) sizes.insert(note->font().pixelSize() + 1000);
    }
    torn = torn || sizes.size() > 2 || colours.size() > 1;
    ++paintings;
    return false;
  }
  int paintings = 0;
  bool torn = false;

 private:
  QWidget& m_window;
};

}  // namespace

class TstRestyle : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_trace;

  struct Opened {
    Session session;
    MainWindow window;
    explicit Opened(const Settings& settings) : window(session, settings) {}
  };
  std::unique_ptr<Opened> opened(const Settings& settings) {
    fonts::setScale(settings.uiScalePercent / 100.0);
    Theme::apply(settings.theme == Settings::ThemeChoice::Dark);
    auto made = std::make_unique<Opened>(settings);
    made->window.resize(1500, 950);
    made->window.show();
    made->window.openFiles({m_trace});
    const auto* start = made->window.findChild<QWidget*>(QStringLiteral("startPage"));
    const bool there = eventually(
        [&] { return made->session.trace() != nullptr && made->window.viewsAreTold() && !start->isVisible(); });
    if (!there || !eventually([&] { return made->session.jobs().idle(); })) return nullptr;
    QTest::qWait(30);
    return made;
  }
  static void trigger(MainWindow& window, const char* name) { window.actionByName(QLatin1String(name))->trigger(); }
  static bool settle(MainWindow& window) {
    const bool told = eventually([&] { return window.viewsAreTold() && window.updatesEnabled(); });
    QTest::qWait(30);
    return told;
  }
  /// As a window that begins with these settings.
  void isAsMadeWith(MainWindow& window, const Settings& settings) {
    const auto fresh = opened(settings);
    QVERIFY(fresh != nullptr);
    QStringList differences;
    compare(window, fresh->window, {}, differences);
    QVERIFY2(differences.isEmpty(), qPrintable(differences.mid(0, 12).join(QLatin1Char('\n'))));
  }

 private Q_SLOTS:
  void initTestCase() {
    qRegisterMetaType<ChangeFlags>();
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
  }
  void init() { QSettings().clear(); }
  void cleanup() {
    fonts::setScale(1.0);
    Theme::apply(true);
  }

  void aWindowOfAnotherSizeIsAsOneMadeInIt() {
    const auto made = opened(settingsOf(100, true));
    QVERIFY(made != nullptr);
    Watch watch(made->window);
    for (int i = 0; i < 5; ++i) {
      trigger(made->window, "view.larger");
      QVERIFY(settle(made->window));
    }
    QCOMPARE(made->window.settings().uiScalePercent, 150);
    QVERIFY(watch.paintings > 0);
    QVERIFY(!watch.torn);
    isAsMadeWith(made->window, settingsOf(150, true));
  }

  void aWindowOfAnotherThemeIsAsOneMadeInIt() {
    const auto made = opened(settingsOf(100, true));
    QVERIFY(made != nullptr);
    Watch watch(made->window);
    trigger(made->window, "theme.light");
    QVERIFY(settle(made->window));
    QVERIFY(watch.paintings > 0);
    QVERIFY(!watch.torn);
    isAsMadeWith(made->window, settingsOf(100, false));
  }

  void aSecondChangeTakesOverTheFirst() {
    const auto made = opened(settingsOf(100, true));
    QVERIFY(made != nullptr);
    Watch watch(made->window);
    for (const int turns : {0, 1, 3}) {
      trigger(made->window, "view.larger");
      for (int i = 0; i < turns; ++i) QCoreApplication::processEvents();
      trigger(made->window, "theme.light");
      for (int i = 0; i < turns; ++i) QCoreApplication::processEvents();
      trigger(made->window, "view.larger");
      for (int i = 0; i < turns; ++i) QCoreApplication::processEvents();
      trigger(made->window, "theme.dark");
    }
    trigger(made->window, "theme.light");
    QVERIFY(settle(made->window));
    QCOMPARE(made->window.settings().uiScalePercent, 160);
    QVERIFY(!watch.torn);
    isAsMadeWith(made->window, settingsOf(160, false));
  }

  void theWindowPaintsAfterwardsWhateverWasToBePaintedBefore() {
    Theme::apply(true);
    Session session;
    MainWindow window(session, settingsOf(100, true));
    window.resize(1500, 950);
    window.show();
    QVERIFY(QTest::qWaitForWindowExposed(&window));
    Profile profile(4, 3, 2, BudgetRole::KeptTarget);
    for (int step = 0; step < 4; ++step)
      for (int layer = 0; layer < 3; ++layer)
        for (int head = 0; head < 2; ++head) profile.set({step, layer, head}, 0.2 + 0.1 * layer);
    session.profile().open(profile, QString(), QStringLiteral("small"));
    QVERIFY(eventually([&] { return window.view(QStringLiteral("budget"))->isVisible(); }) && settle(window));
    Watch watch(window);
    const auto paints = [&] {
      watch.paintings = 0;
      window.update();
      return eventually([&] { return watch.paintings > 0; }, 3000);
    };
    QVERIFY(paints());
    for (int i = 0; i < 3; ++i) {
      window.update();
      window.showView(i % 2 == 0 ? QStringLiteral("map") : QStringLiteral("heatmap"));
      for (int k = 0; k < 3; ++k) trigger(window, "view.larger");
      QVERIFY(settle(window) && paints());
      window.update();
      trigger(window, "layout.tune");
      QVERIFY(settle(window) && paints());
      window.update();
      trigger(window, "layout.diagnose");
      trigger(window, i % 2 == 0 ? "theme.light" : "theme.dark");
      QVERIFY(settle(window) && paints());
    }
  }

  void whatIsOpenOrOpenedLaterHasIt() {
    const auto made = opened(settingsOf(100, true));
    QVERIFY(made != nullptr);
    trigger(made->window, "help.keys");
    QDialog* keys = nullptr;
    QVERIFY(eventually([&] {
      for (auto* dialog : made->window.findChildren<QDialog*>())
        if (dialog->isVisible()) keys = dialog;
      return keys != nullptr;
    }));
    trigger(made->window, "view.larger");
    trigger(made->window, "view.larger");
    QVERIFY(settle(made->window));
    QCOMPARE(fonts::base().pixelSize(), 16);
    QVERIFY(eventually([&] { return keys->font().pixelSize() == 16; }));
    for (const auto* line : keys->findChildren<QLineEdit*>()) QCOMPARE(line->font().pixelSize(), 16);
    keys->close();
    made->window.showView(QStringLiteral("stepper"));
    QVERIFY(settle(made->window));
    const View* view = made->window.view(QStringLiteral("stepper"));
    QVERIFY(view->isVisible());
    for (const auto* note : view->findChildren<NoteLabel*>())
      QCOMPARE(note->font().pixelSize(), fonts::of(FontRole::Note).pixelSize());
    for (const auto* label : view->findChildren<SectionLabel*>())
      QCOMPARE(label->font().pixelSize(), fonts::dockTitle().pixelSize());
    trigger(made->window, "file.settings");
    QDialog* settings = nullptr;
    QVERIFY(eventually([&] {
      for (auto* dialog : made->window.findChildren<QDialog*>())
        if (dialog->isVisible() && dialog != keys) settings = dialog;
      return settings != nullptr;
    }));
    for (const auto* combo : settings->findChildren<QComboBox*>()) QCOMPARE(combo->font().pixelSize(), 16);
    settings->close();
  }

  void applyReachesPartsAtOnce() {
    Theme::apply(true);
    QWidget window;
    auto* part = new QWidget(&window);
    Theme::makePart(part);
    auto* plain = new QLabel(QStringLiteral("plain"), part);
    auto* note = new NoteLabel(part);
    auto* title = new QLabel(part);
    fonts::give(title, FontRole::Title);
    fonts::setScale(2.0);
    Theme::apply(false);
    QCOMPARE(part->font().pixelSize(), 26);
    QCOMPARE(plain->font().pixelSize(), 26);
    QCOMPARE(title->font().pixelSize(), 26);
    QCOMPARE(title->font().weight(), QFont::DemiBold);
    QCOMPARE(note->font().pixelSize(), fonts::of(FontRole::Note).pixelSize());
    QCOMPARE(plain->palette().color(QPalette::WindowText), Theme::light().text);
    QCOMPARE(part->palette().color(QPalette::Disabled, QPalette::Text), Theme::light().disabled);
    const auto parts = Theme::announce(true);
    QVERIFY(std::find(parts.begin(), parts.end(), part) != parts.end());
    QCOMPARE(plain->palette().color(QPalette::WindowText), Theme::light().text);  // until its turn
    Theme::applyTo(*part);
    QCOMPARE(plain->palette().color(QPalette::WindowText), Theme::darkTheme().text);
    // What comes later is as what is there.
    auto* late = new QLabel(part);
    QCOMPARE(late->font().pixelSize(), 26);
    QCOMPARE(late->palette().color(QPalette::WindowText), Theme::darkTheme().text);
  }

  void layoutsInTurnsAreAsAtOnce() {
    const auto turns = opened(settingsOf(100, true));
    const auto atOnce = opened(settingsOf(100, true));
    QVERIFY(turns != nullptr && atOnce != nullptr);
    const auto placesOf = [](const MainWindow& window) {
      QStringList places;
      for (const View* view : window.findChildren<View*>())
        if (view->isVisible()) {
          const auto place = [&](const QWidget* w) {
            const QRect r(w->mapTo(&window, QPoint()), w->size());
            return QStringLiteral("%1 %2x%3").arg(w->objectName()).arg(r.x() / 16).arg(r.width() / 16);
          };
          places << place(view);
          for (const QWidget* inner : view->findChildren<QWidget*>(QString(), Qt::FindDirectChildrenOnly))
            if (inner->isVisible()) places << view->objectName() + QLatin1Char('/') + place(inner);
          // What is in it fills it.
          if (view->layout() != nullptr && view->layout()->geometry().size() != view->contentsRect().size())
            places << QStringLiteral("not laid out");
        }
      return places;
    };
    const QStringList names{QStringLiteral("tune"), QStringLiteral("compare"), QStringLiteral("teach"),
                            QStringLiteral("diagnose")};
    for (const QString& name : names + names) {
      turns->window.actionByName(QStringLiteral("layout.") + name)->trigger();
      atOnce->window.setLayoutPreset(name);
      QVERIFY(settle(turns->window) && settle(atOnce->window));
      QStringList is, wanted;
      const bool same = eventually(
          [&] {
            is = placesOf(turns->window);
            wanted = placesOf(atOnce->window);
            return is == wanted && !is.contains(QStringLiteral("not laid out"));
          },
          3000);
      QVERIFY2(same, qPrintable(name + QLatin1Char('\n') + is.join(QLatin1Char('\n')) + QStringLiteral("\n---\n") +
                                wanted.join(QLatin1Char('\n'))));
      QVERIFY(is.size() > 1);
    }
    // Another while one is on its way.
    turns->window.actionByName(QStringLiteral("layout.tune"))->trigger();
    QCoreApplication::processEvents();
    turns->window.actionByName(QStringLiteral("layout.compare"))->trigger();
    trigger(turns->window, "view.larger");
    QCoreApplication::processEvents();
    turns->window.actionByName(QStringLiteral("layout.diagnose"))->trigger();
    trigger(turns->window, "view.normal");
    atOnce->window.setLayoutPreset(QStringLiteral("diagnose"));
    QVERIFY(settle(turns->window) && settle(atOnce->window));
    QVERIFY(turns->window.view(QStringLiteral("heads"))->isVisible());
    QVERIFY(!turns->window.help().isVisible());
    QTRY_VERIFY(!placesOf(turns->window).contains(QStringLiteral("not laid out")));
  }
};

QTEST_MAIN(TstRestyle)
#include "tst_restyle.moc"
