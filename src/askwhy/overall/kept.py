from askwhy.kept import read as read
from askwhy.kept import same as same
from askwhy.kept import write as write
