// SPDX-License-Identifier: Apache-2.0
// The program as it is started: --self-test and render, with exit codes and files.
#include <QFile>
#include <QFileInfo>
#include <QImage>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QProcess>
#include <QRegularExpression>
#include <QTest>

#include "sparsight/core/profile.h"
#include "tests/gui/gui_fixture.h"
#include "ui/view_host.h"

using namespace sparsight;
using namespace sparsight::test;

class TstSelfTest : public QObject {
  Q_OBJECT
 private:
  PrivateHome m_home;
  QString m_program, m_trace;

  struct Ran {
    int code;
    QString out, err;
  };
  Ran run(const QStringList& arguments, bool display = false) {
    QProcess process;
    QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
    environment.remove(QStringLiteral("QT_QPA_PLATFORM"));
    if (!display) environment.remove(QStringLiteral("DISPLAY"));
    environment.remove(QStringLiteral("SPARSIGHT_RENDERER"));
    process.setProcessEnvironment(environment);
    process.start(m_program, arguments);
    if (!process.waitForFinished(280'000)) return {-1, {}, QStringLiteral("timeout")};
    QString err = QString::fromUtf8(process.readAllStandardError());
    QStringList lines = err.split(QLatin1Char('\n'), Qt::SkipEmptyParts);
    lines.removeIf([](const QString& line) { return line.contains(QStringLiteral("XDG_RUNTIME_DIR")); });
    return {process.exitStatus() == QProcess::NormalExit ? process.exitCode() : -2,
            QString::fromUtf8(process.readAllStandardOutput()), lines.join(QLatin1Char('\n'))};
  }

 private Q_SLOTS:
  void initTestCase() {
    m_program = QCoreApplication::applicationDirPath() + QStringLiteral("/sparsight");
    QVERIFY2(QFileInfo(m_program).isExecutable(), "build the target sparsight first");
    m_trace = writeSmallTrace(m_home.file(QStringLiteral("small.h5")));
  }

  void selfTestPaintsEveryView() {
    const Ran ran = run({QStringLiteral("--self-test")}, true);
    QVERIFY2(ran.code == 0, qPrintable(ran.out + ran.err));
    for (const ViewInfo* info : allViews())
      QVERIFY2(ran.out.contains(QStringLiteral("view %1").arg(QLatin1String(info->id))), info->id);
    QVERIFY(ran.out.trimmed().endsWith(QStringLiteral("ok")));
    QVERIFY(ran.out.contains(QStringLiteral("backend cpu: usable")));
  }

  void rendersWithoutADisplay() {
    const QString png = m_home.file(QStringLiteral("grid.png"));
    const QStringList command{QStringLiteral("render"),   m_trace,
                              QStringLiteral("--view"),   QStringLiteral("grid"),
                              QStringLiteral("--out"),    png,
                              QStringLiteral("--size"),   QStringLiteral("400x500"),
                              QStringLiteral("--scale"),  QStringLiteral("2"),
                              QStringLiteral("--theme"),  QStringLiteral("dark"),
                              QStringLiteral("--method"), QStringLiteral("svg"),
                              QStringLiteral("--param"),  QStringLiteral("kept=0.3"),
                              QStringLiteral("--metric"), QStringLiteral("kept")};
    const Ran ran = run(command);
    QVERIFY2(ran.code == 0, qPrintable(ran.err));
    const QImage image(png);
    QCOMPARE(image.size(), QSize(800, 1000));
    QVERIFY(countColors(image) > 20);
    QVERIFY(image.pixelColor(2, 2).lightness() < 60);
    QVERIFY(image.text(QStringLiteral("sparsight-command")).startsWith(QStringLiteral("sparsight render ")));
    QVERIFY(image.text(QStringLiteral("sparsight-command")).contains(QStringLiteral("kept=0.3")));
    const QJsonObject state = QJsonDocument::fromJson(image.text(QStringLiteral("sparsight-state")).toUtf8()).object();
    QCOMPARE(state[QStringLiteral("view")].toString(), QStringLiteral("heads"));
    QCOMPARE(state[QStringLiteral("state")].toObject()[QStringLiteral("mode")].toString(), QStringLiteral("kept"));
    // The same picture again, to the pixel.
    const Ran again = run(command);
    QVERIFY(again.code == 0);
    QCOMPARE(QImage(png), image);
  }

  void rendersTheWholeWindow() {
    const QString png = m_home.file(QStringLiteral("window.png"));
    const auto command = [this](const QString& out) {
      return QStringList{QStringLiteral("render"),   m_trace,
                         QStringLiteral("--view"),   QStringLiteral("window"),
                         QStringLiteral("--out"),    out,
                         QStringLiteral("--scale"),  QStringLiteral("2"),
                         QStringLiteral("--theme"),  QStringLiteral("dark"),
                         QStringLiteral("--method"), QStringLiteral("svg"),
                         QStringLiteral("--run"),    QStringLiteral("all"),
                         QStringLiteral("--layer"),  QStringLiteral("1"),
                         QStringLiteral("--pair"),   QStringLiteral("40,41"),
                         QStringLiteral("--set"),    QStringLiteral("map.pooling=mean"),
                         QStringLiteral("--metric"), QStringLiteral("error"),
                         QStringLiteral("--front"),  QStringLiteral("jobs")};
    };
    const Ran ran = run(command(png));
    QVERIFY2(ran.code == 0, qPrintable(ran.err));
    const QImage image(png);
    QCOMPARE(image.size(), QSize(3200, 2000));
    QVERIFY(countColors(image) > 200);
    const QJsonObject state = QJsonDocument::fromJson(image.text(QStringLiteral("sparsight-state")).toUtf8()).object();
    QCOMPARE(state[QStringLiteral("view")].toString(), QStringLiteral("window"));
    const QJsonObject views = state[QStringLiteral("state")].toObject()[QStringLiteral("views")].toObject();
    QCOMPARE(views[QStringLiteral("map")].toObject()[QStringLiteral("pooling")].toString(), QStringLiteral("mean"));
    QCOMPARE(views[QStringLiteral("heads")].toObject()[QStringLiteral("mode")].toString(), QStringLiteral("error"));
    QVERIFY(!QFileInfo::exists(m_home.file(QStringLiteral("xdg_config_home/sparsight"))));
  }

  void theWindowIsTheSamePictureAgain() {
    const QString first = m_home.file(QStringLiteral("w1.png")), second = m_home.file(QStringLiteral("w2.png"));
    for (const QString& out : {first, second}) {
      const Ran ran = run({QStringLiteral("render"), m_trace, QStringLiteral("--view"), QStringLiteral("window"),
                           QStringLiteral("--out"), out, QStringLiteral("--method"), QStringLiteral("svg")});
      QVERIFY2(ran.code == 0, qPrintable(ran.err));
    }
    QCOMPARE(QImage(first), QImage(second));
  }

  void aComparisonComparesBeforeItIsPainted() {
    const QString first = m_home.file(QStringLiteral("c1.png")), second = m_home.file(QStringLiteral("c2.png"));
    for (const QString& out : {first, second}) {
      const Ran ran = run({QStringLiteral("render"), m_trace, QStringLiteral("--view"), QStringLiteral("compare"),
                           QStringLiteral("--out"), out, QStringLiteral("--set"), QStringLiteral("methods=dense,svg"),
                           QStringLiteral("--set"), QStringLiteral("at=kept"), QStringLiteral("--set"),
                           QStringLiteral("value=40"), QStringLiteral("--set"), QStringLiteral("scope=layer")});
      QVERIFY2(ran.code == 0, qPrintable(ran.err));
    }
    const QImage image(first);
    QVERIFY(countColors(image) > 200);  // maps, and not the message that nothing was compared
    QCOMPARE(QImage(second), image);
    const QJsonObject state = QJsonDocument::fromJson(image.text(QStringLiteral("sparsight-state")).toUtf8())
                                  .object()[QStringLiteral("state")]
                                  .toObject();
    QCOMPARE(state[QStringLiteral("at")].toString(), QStringLiteral("kept"));
    QCOMPARE(state[QStringLiteral("value")].toDouble(), 40.0);
    QCOMPARE(state[QStringLiteral("methods")].toArray().size(), 2);
  }

  void aTraceAloneMeasuresTheProfileItShows() {
    const QString png = m_home.file(QStringLiteral("profile.png"));
    const Ran ran = run({QStringLiteral("render"), m_trace, QStringLiteral("--view"), QStringLiteral("profile"),
                         QStringLiteral("--out"), png});
    QVERIFY2(ran.code == 0, qPrintable(ran.err));
    QVERIFY2(ran.err.contains(QStringLiteral("measuring one")), qPrintable(ran.err));
    // With the profile in a file beside it, nothing is measured.
    const QString json = m_home.file(QStringLiteral("made.json"));
    Profile made(2, 2, 3, BudgetRole::KeptTarget);
    for (int step = 0; step < 2; ++step)
      for (int layer = 0; layer < 2; ++layer)
        for (int head = 0; head < 3; ++head) made.set({step, layer, head}, 0.1 * (1 + layer + head));
    writeProfile(json.toStdString(), made);
    const Ran beside = run({QStringLiteral("render"), m_trace, QStringLiteral("--view"), QStringLiteral("profile"),
                            QStringLiteral("--profile"), json, QStringLiteral("--out"), png});
    QVERIFY2(beside.code == 0 && !beside.err.contains(QStringLiteral("measuring")), qPrintable(beside.err));
  }

  void rendersTheMapAsEveryFormat() {
    for (const char* suffix : {"png", "svg", "pdf"}) {
      const QString out = m_home.file(QStringLiteral("map.%1").arg(QLatin1String(suffix)));
      const Ran ran =
          run({QStringLiteral("render"), m_trace, QStringLiteral("--view"), QStringLiteral("map"),
               QStringLiteral("--out"), out, QStringLiteral("--layer"), QStringLiteral("1"), QStringLiteral("--head"),
               QStringLiteral("2"), QStringLiteral("--size"), QStringLiteral("700x500")});
      QVERIFY2(ran.code == 0, qPrintable(ran.err));
      QFile file(out);
      QVERIFY(file.open(QIODevice::ReadOnly));
      const QByteArray head = file.read(400);
      const QByteArray expected = qstrcmp(suffix, "png") == 0   ? QByteArray("PNG")
                                  : qstrcmp(suffix, "svg") == 0 ? QByteArray("<svg")
                                                                : QByteArray("%PDF");
      QVERIFY(head.contains(expected));
      QVERIFY(file.size() > 2000);
    }
  }

  void errorsAreOneLineWithTheRightCode_data() {
    QTest::addColumn<QStringList>("arguments");
    QTest::addColumn<int>("code");
    const auto row = [](const char* name, const char* words, int code) {
      QTest::newRow(name) << QString::fromLatin1(words).split(QLatin1Char(' '), Qt::SkipEmptyParts) << code;
    };
    row("no view", "render @ --out o.png", 2);
    row("unknown view", "render @ --view nonsense --out o.png", 2);
    row("format", "render @ --view map --out o.gif", 2);
    row("size", "render @ --view map --out o.png --size 10000000x2", 2);
    row("theme", "render @ --view map --out o.png --theme pink", 2);
    row("method", "render @ --view map --out o.png --method nonsense", 2);
    row("param", "render @ --view map --out o.png --method svg --param kept=7", 2);
    row("layer", "render @ --view map --out o.png --layer 99", 2);
    row("layout", "render @ --view window --out o.png --layout nonsense", 2);
    row("layout of a view", "render @ --view map --out o.png --layout tune", 2);
    row("front", "render @ --view window --out o.png --front nonsense", 2);
    row("window option of a view", "render @ --view window --out o.png --set pooling=mean", 2);
    row("pair", "render @ --view window --out o.png --pair 3", 2);
    row("run", "render @ --view window --out o.png --method svg --run some", 2);
    row("profile file", "render @ --view window --out o.png --profile /no/such/p.csv", 3);
    row("missing file", "render /no/such/file.h5 --view map --out o.png", 3);
    row("folder", "render / --view map --out o.png", 3);
    row("unwritable", "render @ --view grid --out /no/such/folder/o.png", 3);
    row("window option", "--step x", 2);
    row("window view", "--view nonsense", 2);
    row("window file", "/no/such/file.h5", 3);
  }
  void errorsAreOneLineWithTheRightCode() {
    QFETCH(QStringList, arguments);
    QFETCH(int, code);
    arguments.replaceInStrings(QStringLiteral("@"), m_trace);
    arguments.replaceInStrings(QRegularExpression(QStringLiteral("^o\\.")), m_home.file(QStringLiteral("o.")));
    const Ran ran = run(arguments, !arguments.contains(QStringLiteral("render")));
    QVERIFY2(ran.code == code, qPrintable(QStringLiteral("%1: %2").arg(ran.code).arg(ran.err)));
    QVERIFY2(ran.err.startsWith(QStringLiteral("sparsight: ")) && !ran.err.contains(QLatin1Char('\n')),
             qPrintable(ran.err));
    QVERIFY(!QFileInfo::exists(m_home.file(QStringLiteral("o.png"))));
  }

  void helpAndVersionNeedNoDisplay() {
    QVERIFY(run({QStringLiteral("--help")}).out.contains(QStringLiteral("render")));
    QVERIFY(run({QStringLiteral("--version")}).out.startsWith(QStringLiteral("sparsight ")));
    QVERIFY(run({QStringLiteral("render"), QStringLiteral("--help")}).out.contains(QStringLiteral("--out")));
    const Ran ran = run({m_trace});
    QCOMPARE(ran.code, 4);
    QVERIFY(ran.err.contains(QStringLiteral("no display")));
  }
};

QTEST_MAIN(TstSelfTest)
#include "tst_self_test.moc"
