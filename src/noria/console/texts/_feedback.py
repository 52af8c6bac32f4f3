"""Saying what one thinks of an answer."""

TEXTS: dict[str, tuple[str, str]] = {
    "feedback.title": ("Feedback", "反馈"),
    "feedback.up": ("Good", "好"),
    "feedback.down": ("Bad", "差"),
    "feedback.more": ("Correct or comment", "更正或评论"),
    "feedback.correction": ("What the answer should have been", "应有的回答"),
    "feedback.label": ("Label", "标签"),
    "feedback.score": ("Score", "评分"),
    "feedback.comment": ("Comment", "评论"),
    "feedback.author": ("Who", "署名"),
    "feedback.saved": ("Thank you", "已记录"),
    "feedback.nothing": ("Nothing is said of it yet.", "还没有反馈。"),
    "feedback.delete": ("Delete this feedback?", "删除这条反馈？"),
    "feedback.delete_text": (
        "Rows that datasets made of it are erased too.",
        "由它生成的数据集行也会抹除。",
    ),
    "feedback.corrected": ("Corrected", "更正"),
    "feedback.by": ("{author} · {time}", "{author} · {time}"),
    "feedback.source.api": ("by the API", "来自 API"),
    "feedback.source.cli": ("by the command line", "来自命令行"),
    "feedback.source.console": ("here", "来自控制台"),
    "feedback.source.import": ("imported", "导入"),
}
