"""Feedback, datasets, prompts, evals, fine-tuning, the wheel"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("meta", _JSON, nullable=False),
        sa.Column("head", sa.Integer(), nullable=False),
        sa.Column("validation_share", sa.Float(), nullable=False),
        sa.Column("test_share", sa.Float(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "name"),
    )
    with op.batch_alter_table("dataset", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dataset_project_id"), ["project_id"], unique=False)

    op.create_table(
        "eval",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("data_source_config", _JSON, nullable=False),
        sa.Column("testing_criteria", _JSON, nullable=False),
        sa.Column("meta", _JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("eval", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_eval_project_id"), ["project_id"], unique=False)

    op.create_table(
        "feedback",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("target_kind", sa.String(length=16), nullable=False),
        sa.Column("target_id", sa.String(length=128), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=True),
        sa.Column("span_id", sa.String(length=16), nullable=True),
        sa.Column("model", sa.String(length=256), nullable=True),
        sa.Column("rating", sa.Integer(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("label", sa.String(length=256), nullable=True),
        sa.Column("correction", _JSON, nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("author", sa.String(length=256), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("external_id", sa.String(length=256), nullable=True),
        sa.Column("meta", _JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "external_id"),
    )
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_feedback_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_feedback_model"), ["model"], unique=False)
        batch_op.create_index(batch_op.f("ix_feedback_project_id"), ["project_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_feedback_target_id"), ["target_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_feedback_trace_id"), ["trace_id"], unique=False)

    op.create_table(
        "judge_agreement",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("grader_digest", sa.String(length=64), nullable=False),
        sa.Column("grader", _JSON, nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=True),
        sa.Column("dataset_version", sa.Integer(), nullable=True),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.Column("agreement", sa.Float(), nullable=False),
        sa.Column("kappa", sa.Float(), nullable=False),
        sa.Column("detail", _JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("judge_agreement", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_judge_agreement_grader_digest"), ["grader_digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_judge_agreement_project_id"), ["project_id"], unique=False)

    op.create_table(
        "prompt",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("labels", _JSON, nullable=False),
        sa.Column("label_moves", _JSON, nullable=False),
        sa.Column("head", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "name"),
    )
    with op.batch_alter_table("prompt", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_prompt_project_id"), ["project_id"], unique=False)

    op.create_table(
        "tuned_model",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=256), nullable=False),
        sa.Column("base_model", sa.String(length=256), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("tuning_job_id", sa.String(length=64), nullable=True),
        sa.Column("folder", sa.String(length=1024), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("detail", _JSON, nullable=False),
        sa.Column("marks", _JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("project_id", "id"),
    )
    with op.batch_alter_table("tuned_model", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tuned_model_base_model"), ["base_model"], unique=False)
        batch_op.create_index(batch_op.f("ix_tuned_model_tuning_job_id"), ["tuning_job_id"], unique=False)

    op.create_table(
        "tuning_job",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("training_file", sa.String(length=64), nullable=False),
        sa.Column("validation_file", sa.String(length=64), nullable=True),
        sa.Column("method", _JSON, nullable=False),
        sa.Column("resolved", _JSON, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("suffix", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=True),
        sa.Column("fine_tuned_model", sa.String(length=256), nullable=True),
        sa.Column("result_files", _JSON, nullable=False),
        sa.Column("meta", _JSON, nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("estimated_finish", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("tuning_job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tuning_job_fine_tuned_model"), ["fine_tuned_model"], unique=False)
        batch_op.create_index(batch_op.f("ix_tuning_job_project_id"), ["project_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tuning_job_status"), ["status"], unique=False)
        batch_op.create_index(batch_op.f("ix_tuning_job_training_file"), ["training_file"], unique=False)
        batch_op.create_index(batch_op.f("ix_tuning_job_validation_file"), ["validation_file"], unique=False)

    op.create_table(
        "wheel",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("route", sa.String(length=256), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=True),
        sa.Column("open_turn_id", sa.String(length=64), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "name"),
    )
    with op.batch_alter_table("wheel", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_wheel_project_id"), ["project_id"], unique=False)

    op.create_table(
        "dataset_finding",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("row_ids", _JSON, nullable=False),
        sa.Column("remove_ids", _JSON, nullable=False),
        sa.Column("detail", _JSON, nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("decided_by", sa.String(length=256), nullable=True),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("dataset_finding", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dataset_finding_dataset_id"), ["dataset_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_dataset_finding_kind"), ["kind"], unique=False)

    op.create_table(
        "dataset_row",
        sa.Column("ordinal", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("row_id", sa.String(length=64), nullable=False),
        sa.Column("added_in", sa.Integer(), nullable=False),
        sa.Column("removed_in", sa.Integer(), nullable=True),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("content", _JSON, nullable=True),
        sa.Column("erased_at", sa.BigInteger(), nullable=True),
        sa.Column("staged", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("ordinal"),
    )
    with op.batch_alter_table("dataset_row", schema=None) as batch_op:
        batch_op.create_index("ix_dataset_row_id", ["dataset_id", "row_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_dataset_row_staged"), ["staged"], unique=False)
        batch_op.create_index("ix_dataset_row_order", ["dataset_id", "ordinal"], unique=False)

    op.create_table(
        "dataset_version",
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("origin", _JSON, nullable=False),
        sa.Column("counts", _JSON, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset_id", "number"),
    )
    op.create_table(
        "eval_run",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("eval_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=True),
        sa.Column("data_source", _JSON, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("num_items", sa.Integer(), nullable=True),
        sa.Column("result_counts", _JSON, nullable=False),
        sa.Column("per_criterion", _JSON, nullable=False),
        sa.Column("usage", _JSON, nullable=False),
        sa.Column("statistics", _JSON, nullable=False),
        sa.Column("plan", _JSON, nullable=True),
        sa.Column("options", _JSON, nullable=False),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("meta", _JSON, nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["eval_id"], ["eval.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("eval_run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_eval_run_eval_id"), ["eval_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_eval_run_model"), ["model"], unique=False)
        batch_op.create_index(batch_op.f("ix_eval_run_project_id"), ["project_id"], unique=False)

    op.create_table(
        "prompt_version",
        sa.Column("prompt_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("template", _JSON, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("prompt_id", "number"),
    )
    op.create_table(
        "row_source",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("row_id", sa.String(length=64), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=True),
        sa.Column("span_id", sa.String(length=16), nullable=True),
        sa.Column("feedback_id", sa.String(length=64), nullable=True),
        sa.Column("completion_id", sa.String(length=64), nullable=True),
        sa.Column("file_id", sa.String(length=64), nullable=True),
        sa.Column("staged", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("row_source", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_row_source_completion_id"), ["completion_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_row_source_feedback_id"), ["feedback_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_row_source_file_id"), ["file_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_row_source_row_id"), ["row_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_row_source_staged"), ["staged"], unique=False)
        batch_op.create_index(batch_op.f("ix_row_source_trace_id"), ["trace_id"], unique=False)

    op.create_table(
        "tuning_checkpoint",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tuning_job_id", sa.String(length=64), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("metrics", _JSON, nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tuning_job_id"], ["tuning_job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("tuning_checkpoint", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tuning_checkpoint_tuning_job_id"), ["tuning_job_id"], unique=False)

    op.create_table(
        "tuning_event",
        sa.Column("ordinal", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tuning_job_id", sa.String(length=64), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", _JSON, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tuning_job_id"], ["tuning_job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("ordinal"),
        sa.UniqueConstraint("id"),
    )
    with op.batch_alter_table("tuning_event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tuning_event_tuning_job_id"), ["tuning_job_id"], unique=False)

    op.create_table(
        "wheel_turn",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("wheel_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("step", sa.String(length=24), nullable=False),
        sa.Column("outcome", sa.String(length=24), nullable=True),
        sa.Column("data", _JSON, nullable=False),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(["wheel_id"], ["wheel.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("wheel_id", "number"),
    )
    with op.batch_alter_table("wheel_turn", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_wheel_turn_project_id"), ["project_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_wheel_turn_wheel_id"), ["wheel_id"], unique=False)

    op.create_table(
        "eval_item",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("row_id", sa.String(length=64), nullable=True),
        sa.Column("datasource_item", _JSON, nullable=False),
        sa.Column("sample", _JSON, nullable=True),
        sa.Column("results", _JSON, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(["run_id"], ["eval_run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "position"),
    )
    with op.batch_alter_table("eval_item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_eval_item_row_id"), ["row_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_eval_item_run_id"), ["run_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_eval_item_trace_id"), ["trace_id"], unique=False)

    with op.batch_alter_table("file", schema=None) as batch_op:
        batch_op.add_column(sa.Column("origin", _JSON, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("file", schema=None) as batch_op:
        batch_op.drop_column("origin")

    with op.batch_alter_table("eval_item", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_eval_item_trace_id"))
        batch_op.drop_index(batch_op.f("ix_eval_item_run_id"))
        batch_op.drop_index(batch_op.f("ix_eval_item_row_id"))

    op.drop_table("eval_item")
    with op.batch_alter_table("wheel_turn", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_wheel_turn_wheel_id"))
        batch_op.drop_index(batch_op.f("ix_wheel_turn_project_id"))

    op.drop_table("wheel_turn")
    with op.batch_alter_table("tuning_event", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tuning_event_tuning_job_id"))

    op.drop_table("tuning_event")
    with op.batch_alter_table("tuning_checkpoint", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tuning_checkpoint_tuning_job_id"))

    op.drop_table("tuning_checkpoint")
    with op.batch_alter_table("row_source", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_row_source_trace_id"))
        batch_op.drop_index(batch_op.f("ix_row_source_staged"))
        batch_op.drop_index(batch_op.f("ix_row_source_row_id"))
        batch_op.drop_index(batch_op.f("ix_row_source_file_id"))
        batch_op.drop_index(batch_op.f("ix_row_source_feedback_id"))
        batch_op.drop_index(batch_op.f("ix_row_source_completion_id"))

    op.drop_table("row_source")
    op.drop_table("prompt_version")
    with op.batch_alter_table("eval_run", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_eval_run_project_id"))
        batch_op.drop_index(batch_op.f("ix_eval_run_model"))
        batch_op.drop_index(batch_op.f("ix_eval_run_eval_id"))

    op.drop_table("eval_run")
    op.drop_table("dataset_version")
    with op.batch_alter_table("dataset_row", schema=None) as batch_op:
        batch_op.drop_index("ix_dataset_row_order")
        batch_op.drop_index(batch_op.f("ix_dataset_row_staged"))
        batch_op.drop_index("ix_dataset_row_id")

    op.drop_table("dataset_row")
    with op.batch_alter_table("dataset_finding", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dataset_finding_kind"))
        batch_op.drop_index(batch_op.f("ix_dataset_finding_dataset_id"))

    op.drop_table("dataset_finding")
    with op.batch_alter_table("wheel", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_wheel_project_id"))

    op.drop_table("wheel")
    with op.batch_alter_table("tuning_job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tuning_job_validation_file"))
        batch_op.drop_index(batch_op.f("ix_tuning_job_training_file"))
        batch_op.drop_index(batch_op.f("ix_tuning_job_status"))
        batch_op.drop_index(batch_op.f("ix_tuning_job_project_id"))
        batch_op.drop_index(batch_op.f("ix_tuning_job_fine_tuned_model"))

    op.drop_table("tuning_job")
    with op.batch_alter_table("tuned_model", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tuned_model_tuning_job_id"))
        batch_op.drop_index(batch_op.f("ix_tuned_model_base_model"))

    op.drop_table("tuned_model")
    with op.batch_alter_table("prompt", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_prompt_project_id"))

    op.drop_table("prompt")
    with op.batch_alter_table("judge_agreement", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_judge_agreement_project_id"))
        batch_op.drop_index(batch_op.f("ix_judge_agreement_grader_digest"))

    op.drop_table("judge_agreement")
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_feedback_trace_id"))
        batch_op.drop_index(batch_op.f("ix_feedback_target_id"))
        batch_op.drop_index(batch_op.f("ix_feedback_project_id"))
        batch_op.drop_index(batch_op.f("ix_feedback_model"))
        batch_op.drop_index(batch_op.f("ix_feedback_created_at"))

    op.drop_table("feedback")
    with op.batch_alter_table("eval", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_eval_project_id"))

    op.drop_table("eval")
    with op.batch_alter_table("dataset", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dataset_project_id"))

    op.drop_table("dataset")
