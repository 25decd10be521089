import os

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return f"Hello from {os.environ.get('APP_NAME', 'nobody')}\n"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=5000)
