"""What each setting is. English is the settings' own description, which is so said once; here is the Chinese."""

from noria.settings import Settings

_CHINESE = {
    "home": "存放此实例的数据库、文件、索引、追踪和日志的目录。",
    "cache": "存放已拉取的模型权重的目录；多个实例可以共用。",
    "host": "监听地址。除回环地址外，都需要已有 API 密钥。",
    "port": "API 的端口；0 表示由系统选择。",
    "console": "随 API 一起启动网页控制台。",
    "console_port": "控制台的端口；默认为 API 端口加 1。",
    "database_url": "SQLAlchemy URL，例如 postgresql://user:pw@host/db。默认使用主目录中的 SQLite。",
    "blobs_url": "文件存储的 fsspec URL，例如 s3://bucket/prefix。",
    "vector_index": "向量索引的位置：在服务器旁（embedded），或在 database_url 的 PostgreSQL 中（pgvector）。",
    "secret_key": "加密已保存凭据的密钥。默认自动生成一次，保存在主目录中（权限 0600）。",
    "chat_model": "聊天和补全的别名所指的模型。",
    "embedding_model": "为文档和查询生成向量的模型。",
    "aliases": "程序中写死的模型名称，以及各自对应的模型。默认使用内置的表；{} 表示没有别名。",
    "engine_memory_mb": "所有引擎进程合计的内存上限，单位 MiB。",
    "engine_threads": "一个引擎的线程数；0 表示与物理核心数相同。",
    "train_memory_mb": "一个训练进程的内存，单位 MiB；0 表示本机内存的一半。",
    "train_threads": "一次训练的线程数；0 表示与物理核心数相同。",
    "train_concurrency": "同时进行的训练数；其余的排队。",
    "train_command": "代替 `python -m noria.training` 执行训练的命令，使用本机的文件。",
    "max_body_mb": "JSON 请求体的最大大小，单位 MiB。",
    "max_file_mb": "上传文件的最大大小，单位 MiB。",
    "requests_per_minute": "密钥的默认速率限制（每分钟请求数）；0 表示不限制。",
    "max_concurrent_requests": "同时进行的模型调用数上限，超过后新的调用得到 429。",
    "request_timeout_s": "一次模型调用最长的时间（秒），包括重试。",
    "eval_concurrency": "评测运行中同时提问和评分的行数。",
    "allow_private_urls": "允许模型的 base URL 指向私有或回环地址。",
    "allow_engine_commands": "允许管理员添加在本机运行命令的引擎（llama-server、vLLM）。",
    "trace_content": "在追踪中保留输入和输出；关闭后只保留数字。",
    "trace_retention_days": "超过此天数的追踪会被删除。",
    "trace_max_mb": "追踪总大小超过此值（MiB）时，从最早的开始删除。",
}

TEXTS: dict[str, tuple[str, str]] = {
    f"setting.{name}": (field.description, _CHINESE.get(name, field.description))
    for name, field in Settings.model_fields.items()
    if field.description
}
