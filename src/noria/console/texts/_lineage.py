"""Lineage: what led to a thing, what came of it."""

TEXTS: dict[str, tuple[str, str]] = {
    "lineage.title": ("Lineage", "来龙去脉"),
    "lineage.of": ("of {name}", "{name}"),
    "lineage.find": (
        "Id of a trace, answer, feedback, dataset@version, job, model, run or turn",
        "追踪、回答、反馈、数据集@版本、任务、模型、运行或轮次的 id",
    ),
    "lineage.show": ("Show", "显示"),
    "lineage.hint": (
        "From any answer back to what made its model; from any trace forward to what learned from it.",
        "从任何回答追溯到造就其模型的一切；从任何追踪看到由它学习的一切。",
    ),
    "lineage.truncated": ("There is more than is shown here.", "还有更多未显示。"),
    "lineage.open": ("Open", "打开"),
    "lineage.rows": ("{count} rows", "{count} 行"),
    "lineage.more": ("{count} more", "另有 {count} 个"),
    "lineage.marked": ("learned from a trace that was deleted", "曾从已删除的追踪学习"),
    "kind.trace": ("trace", "追踪"),
    "kind.completion": ("completion", "补全"),
    "kind.response": ("response", "回应"),
    "kind.feedback": ("feedback", "反馈"),
    "kind.row": ("row", "数据行"),
    "kind.version": ("dataset", "数据集"),
    "kind.file": ("file", "文件"),
    "kind.job": ("fine-tuning", "微调"),
    "kind.model": ("model", "模型"),
    "kind.eval_run": ("eval run", "评测运行"),
    "kind.turn": ("turn of the wheel", "水车轮次"),
    "kind.more": ("more", "更多"),
}
