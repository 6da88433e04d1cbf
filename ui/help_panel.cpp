// SPDX-License-Identifier: Apache-2.0
#include "ui/help_panel.h"

#include <QAbstractTextDocumentLayout>
#include <QDesktopServices>
#include <QElapsedTimer>
#include <QFile>
#include <QHBoxLayout>
#include <QKeyEvent>
#include <QLineEdit>
#include <QResizeEvent>
#include <QScrollBar>
#include <QTextDocument>
#include <QTextFrame>
#include <QTextTable>
#include <QToolButton>
#include <QUrl>
#include <QVBoxLayout>

#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr auto kRoot = ":/resources/docs/";

/// Qt renders Markdown with its defaults; these are our type sizes, table lines and code colours.
void styleDocument(QTextDocument& document) {
  const Theme& theme = Theme::current();
  QTextCursor whole(&document);
  whole.beginEditBlock();
  for (QTextBlock block = document.begin(); block.isValid(); block = block.next()) {
    QTextCursor cursor(block);
    const int level = block.blockFormat().headingLevel();
    QTextBlockFormat format = block.blockFormat();
    format.setLineHeight(132, QTextBlockFormat::ProportionalHeight);
    if (level > 0) {
      // Not BlockUnderCursor: that begins in the block before, which would become a heading, too.
      cursor.movePosition(QTextCursor::EndOfBlock, QTextCursor::KeepAnchor);
      QTextCharFormat heading;
      heading.setFontWeight(QFont::DemiBold);
      QFont font = fonts::title();
      font.setPixelSize(level == 1 ? font.pixelSize() + 7 : level == 2 ? font.pixelSize() + 3 : font.pixelSize());
      heading.setFont(font);
      heading.setForeground(theme.text);
      cursor.mergeCharFormat(heading);
      format.setTopMargin(level == 1 ? 0 : 18);
      format.setBottomMargin(6);
    } else if (block.textList() == nullptr && QTextCursor(block).currentTable() == nullptr) {
      format.setBottomMargin(8);
    }
    if (block.blockFormat().hasProperty(QTextFormat::BlockCodeFence) ||
        block.blockFormat().hasProperty(QTextFormat::BlockCodeLanguage)) {
      format.setBackground(theme.raised);
      format.setBottomMargin(0);
    }
    cursor.setBlockFormat(format);
    for (auto it = block.begin(); !it.atEnd(); ++it) {
      const QTextFragment fragment = it.fragment();
      if (!fragment.isValid() || !fragment.charFormat().fontFixedPitch()) continue;
      QTextCursor code(&document);
      code.setPosition(fragment.position());
      code.setPosition(fragment.position() + fragment.length(), QTextCursor::KeepAnchor);
      QTextCharFormat mono;
      mono.setBackground(theme.raised);
      mono.setForeground(theme.text);
      code.mergeCharFormat(mono);
    }
  }
  for (QTextFrame* frame : document.rootFrame()->childFrames()) {
    auto* table = qobject_cast<QTextTable*>(frame);
    if (table == nullptr) continue;
    QTextTableFormat format = table->format();
    format.setBorderCollapse(true);
    format.setBorder(1);
    format.setBorderBrush(theme.line);
    format.setCellPadding(5);
    format.setWidth(QTextLength(QTextLength::PercentageLength, 100));
    format.setTopMargin(6);
    format.setBottomMargin(12);
    table->setFormat(format);
  }
  whole.endEditBlock();
}

}  // namespace

QString headingAnchor(const QString& heading) {
  QString anchor;
  for (const QChar c : heading.toLower()) {
    if (c.isLetterOrNumber() || c == QLatin1Char('-') || c == QLatin1Char('_'))
      anchor += c;
    else if (c.isSpace())
      anchor += QLatin1Char('-');
  }
  return anchor;
}

HelpPanel::HelpPanel(QWidget* parent) : QWidget(parent) {
  setProperty("role", QStringLiteral("panel"));
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  auto* bar = new QHBoxLayout;
  bar->setContentsMargins(Theme::kGroupGap, 2, Theme::kGroupGap, Theme::kUnit);
  bar->setSpacing(2);
  const auto button = [&](const char* icon, const QString& tip) {
    auto* b = new QToolButton;
    b->setIcon(themedIcon(QLatin1String(icon)));
    b->setToolTip(tip);
    b->setAccessibleName(tip);
    bar->addWidget(b);
    return b;
  };
  m_back = button("back", tr("Back (Alt+Left)"));
  m_forward = button("forward", tr("Forward (Alt+Right)"));
  m_back->setEnabled(false);
  m_forward->setEnabled(false);
  QToolButton* home = button("home", tr("Contents"));
  m_search = new QLineEdit;
  m_search->setObjectName(QStringLiteral("helpSearch"));
  m_search->setPlaceholderText(tr("Find in page"));
  m_search->setClearButtonEnabled(true);
  bar->addSpacing(6);
  bar->addWidget(m_search, 1);
  column->addLayout(bar);
  m_found = new NoteLabel(nullptr, false);
  m_found->setContentsMargins(Theme::kEdge, 0, Theme::kEdge, 4);
  m_found->hide();
  column->addWidget(m_found);
  m_browser = new QTextBrowser;
  m_browser->setObjectName(QStringLiteral("helpBrowser"));
  m_browser->setOpenLinks(false);
  m_browser->setFrameShape(QFrame::NoFrame);
  m_browser->setAccessibleName(tr("Help page"));
  m_browser->viewport()->installEventFilter(this);
  column->addWidget(m_browser, 1);
  m_turn.setSingleShot(true);
  connect(&m_turn, &QTimer::timeout, this, &HelpPanel::turn);
  const QScrollBar* scrolls = m_browser->verticalScrollBar();
  connect(scrolls, &QScrollBar::actionTriggered, this, [this] { m_aligned = false; });
  connect(scrolls, &QScrollBar::rangeChanged, this, [this] {
    if (m_aligned && m_step == Step::None) alignHeading();
  });
  connect(m_back, &QToolButton::clicked, this, [this] { navigate(-1); });
  connect(m_forward, &QToolButton::clicked, this, [this] { navigate(1); });
  connect(home, &QToolButton::clicked, this, [this] { showPage(QStringLiteral("index.md")); });
  connect(m_search, &QLineEdit::returnPressed, this, [this] { find(false); });
  connect(m_search, &QLineEdit::textChanged, this, [this](const QString& text) {
    QTextCursor top = m_browser->textCursor();
    top.movePosition(QTextCursor::Start);
    m_browser->setTextCursor(top);
    m_found->hide();
    if (text.size() > 1) find(false);
  });
  connect(m_browser, &QTextBrowser::anchorClicked, this, [this](const QUrl& url) {
    if (!url.scheme().isEmpty() && url.scheme() != QStringLiteral("qrc")) {
      QDesktopServices::openUrl(url);
      return;
    }
    QString target = url.toString(QUrl::RemoveScheme);
    if (target.startsWith(QLatin1Char('#'))) target.prepend(currentPage().section(QLatin1Char('#'), 0, 0));
    // A page in adr/ links to its neighbours and to ../page.md.
    const QString folder =
        currentPage().contains(QLatin1Char('/')) ? currentPage().section(QLatin1Char('/'), 0, -2) : QString();
    if (target.startsWith(QStringLiteral("../")))
      target = target.mid(3);
    else if (!folder.isEmpty() && !target.startsWith(folder))
      target = folder + QLatin1Char('/') + target;
    showPage(target);
  });
}

HelpPanel::~HelpPanel() {
  delete m_browser;  // before the document that it shows
}

void HelpPanel::showPage(const QString& page) {
  m_history = m_history.mid(0, m_at + 1);
  m_history << page;
  m_at = static_cast<int>(m_history.size()) - 1;
  load(page);
}

QString HelpPanel::currentPage() const { return m_at >= 0 ? m_history[m_at] : QString(); }
QString HelpPanel::pageText() const { return m_browser->toPlainText(); }
void HelpPanel::focusSearch() { m_search->setFocus(); }

void HelpPanel::navigate(int delta) {
  const int next = m_at + delta;
  if (next < 0 || next >= m_history.size()) return;
  m_at = next;
  load(m_history[m_at]);
}

void HelpPanel::load(const QString& page) {
  m_back->setEnabled(m_at > 0);
  m_forward->setEnabled(m_at + 1 < m_history.size());
  m_anchor = page.section(QLatin1Char('#'), 1);
  m_next.reset();
  m_laidOut = m_heading = QTextBlock();
  m_step = m_document && m_shown == page.section(QLatin1Char('#'), 0, 0) ? Step::LayOut : Step::Read;
  m_turn.start(0);
}

void HelpPanel::turn() {
  switch (m_step) {
    case Step::Read:
      readPage();
      m_step = Step::Style;
      break;
    case Step::Style:
      styleDocument(*m_next);
      m_step = Step::Show;
      break;
    case Step::Show:
      showDocument();
      m_step = Step::LayOut;
      break;
    case Step::LayOut:
      if (!layOutPart(false)) break;
      m_aligned = true;
      alignHeading();
      m_browser->viewport()->setUpdatesEnabled(true);
      m_step = Step::LayOutRest;
      break;
    case Step::LayOutRest:
      // Left to itself Qt lays out more and more at a time.
      if (!layOutPart(true)) break;
      m_browser->setVerticalScrollBarPolicy(Qt::ScrollBarAsNeeded);
      m_step = Step::None;
      if (m_aligned) alignHeading();
      break;
    case Step::None:
      break;
  }
  if (m_step != Step::None) m_turn.start(0);
}

void HelpPanel::readPage() {
  QFile file(QLatin1String(kRoot) + currentPage().section(QLatin1Char('#'), 0, 0));
  if (!file.open(QIODevice::ReadOnly)) {
    file.setFileName(QLatin1String(kRoot) + QStringLiteral("index.md"));
    static_cast<void>(file.open(QIODevice::ReadOnly));
  }
  m_madeFor = madeFor();
  m_next = std::make_unique<QTextDocument>();
  m_next->setUndoRedoEnabled(false);
  m_next->setDefaultFont(fonts::base());
  m_next->setDocumentMargin(8);
  m_next->setBaseUrl(QUrl(QStringLiteral("qrc") + QLatin1String(kRoot)));
  QTextOption option = m_next->defaultTextOption();
  option.setWrapMode(m_browser->wordWrapMode());
  m_next->setDefaultTextOption(option);
  m_next->setMarkdown(QString::fromUtf8(file.readAll()));
}

void HelpPanel::showDocument() {
  // Nothing is laid out before the browser gives a width, and that once: with the scroll bar that a page mostly needs.
  m_next->setPageSize(QSizeF(0, 0));
  m_browser->setVerticalScrollBarPolicy(Qt::ScrollBarAlwaysOn);
  m_browser->viewport()->setUpdatesEnabled(false);  // until the heading is at the top
  m_browser->setDocument(m_next.get());
  m_document = std::move(m_next);
  m_shown = currentPage().section(QLatin1Char('#'), 0, 0);
}

bool HelpPanel::layOutPart(bool toTheEnd) {
  constexpr qint64 kPartNs = 300'000;
  QElapsedTimer clock;
  clock.start();
  const QAbstractTextDocumentLayout* layout = m_document->documentLayout();
  if (!m_laidOut.isValid()) {
    m_laidOut = m_document->begin();
    m_heading = QTextBlock();
    for (QTextBlock block = m_laidOut; block.isValid() && !m_anchor.isEmpty(); block = block.next())
      if (block.blockFormat().headingLevel() > 0 && headingAnchor(block.text()) == m_anchor) {
        m_heading = block;
        break;
      }
  }
  const int top = m_heading.isValid() ? m_heading.position() : 0;
  for (; m_laidOut.isValid(); m_laidOut = m_laidOut.next()) {
    if (clock.nsecsElapsed() > kPartNs) return false;
    const QRectF place = layout->blockBoundingRect(m_laidOut);  // lays out up to it
    if (toTheEnd || m_laidOut.position() < top) continue;
    const double from = m_heading.isValid() ? layout->blockBoundingRect(m_heading).top() : 0;
    if (place.bottom() > from + m_browser->viewport()->height()) return true;
  }
  m_laidOut = m_document->lastBlock();
  return true;
}

void HelpPanel::alignHeading() {
  QScrollBar* bar = m_browser->verticalScrollBar();
  if (!m_heading.isValid()) return bar->setValue(0);
  // The heading goes to the top, not just into view.
  m_browser->setTextCursor(QTextCursor(m_heading));
  bar->setValue(bar->value() + m_browser->cursorRect().top() - 4);
}

bool HelpPanel::eventFilter(QObject* watched, QEvent* event) {
  // Another width: all is laid out anew.
  if (event->type() == QEvent::Resize && m_document && (m_step == Step::None || m_step >= Step::LayOut)) {
    const auto* resize = static_cast<QResizeEvent*>(event);
    if (resize->size().width() != resize->oldSize().width() && (m_aligned || m_step != Step::None)) {
      m_laidOut = QTextBlock();
      if (m_step == Step::None || (m_step == Step::LayOutRest && m_aligned)) m_step = Step::LayOut;
      m_turn.start(0);
    }
  }
  return QWidget::eventFilter(watched, event);
}

void HelpPanel::find(bool backwards) {
  const QString text = m_search->text();
  if (text.isEmpty()) return;
  const QTextDocument::FindFlags flags = backwards ? QTextDocument::FindBackward : QTextDocument::FindFlags();
  m_aligned = false;
  bool found = m_browser->find(text, flags);
  if (!found) {
    m_browser->moveCursor(backwards ? QTextCursor::End : QTextCursor::Start);
    found = m_browser->find(text, flags);
  }
  m_found->setText(found ? QString() : tr("\u201C%1\u201D is not on this page").arg(text));
  m_found->setVisible(!found);
}

void HelpPanel::changeEvent(QEvent* event) {
  QWidget::changeEvent(event);
  if (m_at < 0 || m_madeFor.second == 0 || madeFor() == m_madeFor) return;  // the first one is yet to be made
  m_shown.clear();  // its colours and sizes are part of the document
  load(m_history[m_at]);
}

std::pair<bool, double> HelpPanel::madeFor() { return {Theme::current().dark, fonts::scale()}; }

void HelpPanel::keyPressEvent(QKeyEvent* event) {
  if (event->modifiers() == Qt::AltModifier && event->key() == Qt::Key_Left) return navigate(-1);
  if (event->modifiers() == Qt::AltModifier && event->key() == Qt::Key_Right) return navigate(1);
  if (event->key() == Qt::Key_Escape && m_search->hasFocus()) return m_search->clear();
  if (event->key() == Qt::Key_F3) return find(event->modifiers() & Qt::ShiftModifier);
  QWidget::keyPressEvent(event);
}

}  // namespace sparsight
