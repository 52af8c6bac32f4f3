"""Home."""

TEXTS: dict[str, tuple[str, str]] = {
    "home.title": ("Home", "首页"),
    "home.requests": ("Requests today", "今日请求"),
    "home.tokens": ("Tokens today", "今日 token"),
    "home.cost": ("Cost today", "今日费用"),
    "home.latency": ("Latency p95 today", "今日延迟 p95"),
    "home.median": ("median {value}", "中位数 {value}"),
    "home.errors": ("{count} failed", "{count} 个失败"),
    "home.recent": ("Recent traces", "最近的追踪"),
    "home.all_traces": ("All traces", "全部追踪"),
    "home.jobs": ("Jobs running", "进行中的任务"),
    "home.instance": ("Instance", "实例"),
    "home.stores": ("Knowledge", "知识库"),
    "home.stores_value": ("stores {stores}, files {files}", "{stores} 个库，{files} 个文件"),
    "home.version": ("Version", "版本"),
    "home.uptime": ("Up for", "已运行"),
    "home.database": ("Database", "数据库"),
    "home.spans": ("Spans", "Span"),
    "home.lost": ("{count} lost", "丢失 {count} 个"),
    "home.connect": ("Connect", "接入"),
    "home.base_url": ("Base URL", "Base URL"),
    "home.key_free": (
        "No API key exists, so programs on this machine need none. To serve others, create one in Settings.",
        "尚无 API 密钥，本机程序无需密钥即可调用。若要服务其他机器，请在“设置”中创建。",
    ),
    "home.key_needed": ("Programs need an API key. Create one under Settings.", "程序需要 API 密钥，可在“设置”中创建。"),
}
